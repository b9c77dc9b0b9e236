"""The wheel of the pipeline holds the pipeline, and nothing that stands in for a service."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from market_data_pipeline_tests.supervised import ROOT

pytestmark = pytest.mark.services  # for its time: it needs none

STAND_INS = r"brapi_sandbox|nx_27017|neosqlite|market_data_pipeline_dev|market_data_pipeline_tests"


def test_no_stand_in_is_in_the_wheel(tmp_path: Path) -> None:
    # Of a copy of the repository, as a build leaves files beside its sources.
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "build", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(copy)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as files:
        modules = {n: files.read(n).decode() for n in files.namelist() if n.endswith(".py")}
        names = set(files.namelist())
    sources = (ROOT / "market_data_pipeline").rglob("*.py")
    assert modules.keys() == {str(path.relative_to(ROOT)) for path in sources}
    assert {name.split("/")[0].split("-")[0] for name in names} == {"market_data_pipeline"}
    for name, code in modules.items():
        assert not re.search(rf"^\s*(from|import) ({STAND_INS})\b", code, re.MULTILINE), name
    assert not any(name.endswith("entry_points.txt") for name in names)
