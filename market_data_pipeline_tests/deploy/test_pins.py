"""The pins are those that the metadata asks for, one version each, whoever serves them."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from market_data_pipeline_tests.deploy.pins import pins, requirements
from market_data_pipeline_tests.supervised import ROOT

METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = METADATA["project"]["optional-dependencies"]
INSTALLED = {
    "dev": EXTRAS["local"],
    "image": EXTRAS["kubernetes"] + EXTRAS["production"],
    "test": [each for extra in EXTRAS.values() for each in extra],
}
OURS = {"brapi-sandbox", "dagster-mongo"}
PIN = r"[\w.-]+==[^ ]+ (; [^-]+? )?( *--hash=sha256:[0-9a-f]{64})+"


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "requirements").iterdir()))
def test_every_pin_is_a_version_with_hashes_and_names_no_host(name: str) -> None:
    lines = requirements(name)
    assert lines
    for line in lines:
        assert re.fullmatch(PIN, line), line


@pytest.mark.parametrize("name", INSTALLED)
def test_what_the_metadata_asks_for_is_pinned(name: str) -> None:
    wanted = [Requirement(each) for each in METADATA["project"]["dependencies"] + INSTALLED[name]]
    pinned = pins(name)
    for each in wanted:
        assert each.name in OURS or each.specifier.contains(pinned[each.name]), each


def test_a_package_has_the_same_version_wherever_it_is_installed() -> None:
    assert pins("dev").items() | pins("image").items() <= pins("test").items()
    assert pins("build")["setuptools"] == pins("test")["setuptools"]
