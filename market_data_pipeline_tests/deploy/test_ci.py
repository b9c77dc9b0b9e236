"""What runs for a push, each night and for a release, and that it needs nothing from outside."""

from __future__ import annotations

import json
import os
import re
import tomllib
from typing import Any

import pytest
import yaml

from market_data_pipeline_tests.services.mongo_engine import PACKAGE
from market_data_pipeline_tests.supervised import ROOT

RIGHTS = {"actions", "attestations", "contents", "id-token", "packages"}
FOLDER = ROOT / ".github" / "workflows"
TEXTS = {path.stem: path.read_text() for path in FOLDER.iterdir()}
WORKFLOWS: dict[str, dict[Any, Any]] = {name: yaml.safe_load(TEXTS[name]) for name in TEXTS}
JOBS = {name: job for name, workflow in WORKFLOWS.items() for job in workflow["jobs"].values()}


@pytest.mark.parametrize("name", TEXTS)
def test_it_may_only_read_ends_in_time_and_runs_no_action_that_may_change(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    assert JOBS[name].get("permissions", {}).keys() == (RIGHTS if name == "release" else set())
    assert JOBS[name]["timeout-minutes"] <= 90
    assert "secrets." not in TEXTS[name]
    used = re.findall(r"uses: (.+)", TEXTS[name])
    assert len(used) == sum("uses" in step for step in JOBS[name]["steps"])
    for each in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)


def test_a_push_a_tag_and_a_commit_run_what_is_there() -> None:
    commands = "\n".join(step.get("run", "") for job in JOBS.values() for step in job["steps"])
    targets = set(re.findall(r"\bmake ([a-z-]+)", commands))
    assert targets == {"check", "dist", "test-kubernetes"}
    for target in targets:
        assert re.search(rf"^{target}: ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for path in re.findall(r"market_data_pipeline_tests/\S+", commands):
        assert (ROOT / path).exists()
    assert os.access(ROOT / JOBS["ci"]["steps"][-1]["run"].split()[-1], os.X_OK)
    # YAML 1.1 reads the key `on` as true.
    assert WORKFLOWS["ci"][True].keys() == {"push", "pull_request"}
    assert WORKFLOWS["release"][True] == {"push": {"tags": ["v*"]}}
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repository["hooks"]
    assert hook["entry"] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_it_has_every_python_that_is_promised() -> None:
    (versions,) = (
        step["with"]["python-version"].split()
        for step in JOBS["ci"]["steps"]
        if step.get("uses", "").startswith("actions/setup-python@")
    )
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    first, end = map(int, re.findall(r"3\.(\d+)", promised))
    assert sorted(versions) == [f"3.{minor}" for minor in range(first, end)]
    assert versions[-1] == (ROOT / ".python-version").read_text().strip()


def test_the_mongodb_engine_is_pinned_with_checksums_and_names_no_registry() -> None:
    """That the lock is of `package.json`, `npm ci` sees."""
    text = (PACKAGE / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    del packages[""]  # the folder itself
    assert packages
    assert all(each["integrity"].startswith("sha512-") for each in packages.values())
    assert "://" not in text


def test_what_runs_names_nothing_outside_of_the_repository() -> None:
    for path in (ROOT / ".ci" / "run", ROOT / "Makefile"):
        assert re.findall(r"\.\./\w\S*|/(?:work|home|root)/\S*", path.read_text()) == []
