"""The package as somebody meets it: what an import loads, and whether the examples run."""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import dagster as dg
import pytest

import dagster_mongo

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def test_an_import_loads_neither_pandas_nor_a_pipeline() -> None:
    program = "import sys, dagster_mongo; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    packages = {module.partition(".")[0] for module in loaded}
    assert "dagster_mongo" in packages
    assert not packages & {"pandas", "numpy", "pyarrow", "market_data_pipeline"}


def test_every_public_name_is_there_and_documented() -> None:
    for name in dagster_mongo.__all__:
        value = getattr(dagster_mongo, name)
        assert isinstance(value, str) or value.__doc__, name


@pytest.mark.parametrize(
    ("release", "label"), [("", "+source"), ("1", "")], ids=["here", "release"]
)
def test_a_release_alone_has_no_local_label(
    release: str, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the label, no index can satisfy a requirement of the package in this folder."""
    monkeypatch.setenv("RELEASE", release)
    asked = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, check=True, capture_output=True
    )
    version = asked.stdout.decode().split()[-1]
    released = dagster_mongo.__version__.partition("+")[0]
    assert version == f"{released}{label}"
    assert f"## {released}" in (ROOT / "CHANGELOG.md").read_text()


def examples() -> list[Any]:
    sources = {"README": README.read_text()}
    for name in dagster_mongo.__all__:
        sources[name] = dedent(" " * 4 + (getattr(dagster_mongo, name).__doc__ or ""))
    return [
        pytest.param(dedent(code), id=f"{name}-{number}")
        for name, text in sources.items()
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL), 1)
    ]


@pytest.mark.parametrize("code", examples())
def test_an_example_runs(code: str, stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGO_URI", stand_in)
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "example", "exec"), namespace)
    definitions = namespace["defs"]
    assert isinstance(definitions, dg.Definitions)
    for job in definitions.resolve_all_job_defs():
        keys = job.partitions_def.get_partition_keys() if job.partitions_def else [None]
        assert job.execute_in_process(partition_key=keys[0]).success


def test_the_readme_names_every_setting_and_field() -> None:
    from dagster_mongo.settings import PREFIX, Settings

    text = README.read_text()
    settings = [PREFIX + name for name in Settings.model_fields]
    fields = [*dagster_mongo.MongoResource.model_fields]
    for name in [*settings, *fields, "partition_expr", "columns"]:
        assert f"`{name}`" in text, name
