"""Imports run one way, between folders too."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

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
    return names - {room(path)}


def test_imports_between_folders_run_one_way() -> None:
    below: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        below.setdefault(room(path), set()).update(imported(path))

    assert len(below) > 5
    order = list(TopologicalSorter(below).static_order())  # raises if there is a circle
    assert order[-1] == "definitions"
