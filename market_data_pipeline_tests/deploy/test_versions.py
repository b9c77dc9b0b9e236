"""Version, changelog and tag say the same."""

from __future__ import annotations

import re
import subprocess
import tomllib

from market_data_pipeline_tests.supervised import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def test_the_last_release_of_the_changelog_is_the_version() -> None:
    releases = re.findall(r"^## (\d\S*)", CHANGELOG, re.MULTILINE)
    assert releases[0] == VERSION
    assert releases == sorted(
        releases, key=lambda each: [int(part) for part in each.split(".")], reverse=True
    )


def test_a_release_begins_with_what_it_breaks() -> None:
    for release in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        parts = re.findall(r"^### (.+)", release, re.MULTILINE)
        assert "Breaking" not in parts[1:], release.splitlines()[0]


def test_a_tag_of_a_version_is_on_a_commit_of_that_version() -> None:
    asked = subprocess.run(
        ["git", "tag", "--list", "v*", "--points-at", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert set(asked.stdout.split()) <= {f"v{VERSION}"}
