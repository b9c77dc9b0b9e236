"""Imports run one way, between folders too."""

import ast
from pathlib import Path

from market_data_pipeline import ClearError
from market_data_pipeline_tests.supervised import ROOT

PACKAGE = ROOT / "market_data_pipeline"


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The folders (or modules of the top) that a module imports from."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name):
            names |= {f"{node.module}.{each.name}".split(".")[1] for each in node.names}
    return names - {room(path), ClearError.__name__}


# From the bottom to the top; what stands side by side knows nothing of each other.
FLOORS = (
    {"settings"},
    {"market"},
    {"runs"},
    {"brapi", "storage"},
    {"b3", "publication", "quotes"},
    {"operation"},
    {"definitions"},
)


def test_a_folder_imports_only_from_those_below_it() -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    paths = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in floor]

    upwards = [
        f"{path.relative_to(PACKAGE)} imports from {name}"
        for path in paths
        for name in imported(path)
        if floor[name] >= floor[room(path)]
    ]

    assert {room(path) for path in paths} == floor.keys()
    assert upwards == []
