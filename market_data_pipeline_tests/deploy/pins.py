"""What `make lock` has pinned."""

from __future__ import annotations

from packaging.requirements import Requirement

from market_data_pipeline_tests.supervised import ROOT


def requirements(name: str) -> list[str]:
    """The pins of a file of `requirements/`, each with its marker and its hashes in one line."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", "")
    return text.splitlines()


def pins(name: str) -> dict[str, str]:
    """Each package that such a file has for this Python on this machine, and its version."""
    found = [Requirement(line.partition("--hash")[0]) for line in requirements(name)]
    here = [each for each in found if each.marker is None or each.marker.evaluate()]
    return {each.name: str(each.specifier).removeprefix("==") for each in here}
