"""The package as somebody meets it: what an import loads, and whether the README is right."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import brapi_sandbox
from brapi_sandbox import Fault, serve
from brapi_sandbox.__main__ import _parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
JSON_FAULTS = re.findall(r"^\| .*\| `(\{.*?\})` \|$", README, re.MULTILINE)


def test_an_import_loads_no_pipeline() -> None:
    program = "import sys, brapi_sandbox; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    packages = {module.partition(".")[0] for module in loaded}
    assert "brapi_sandbox" in packages
    assert not {name for name in packages if name.startswith(("market_data", "dagster"))}


def test_every_public_name_is_there_and_documented() -> None:
    for name in brapi_sandbox.__all__:
        value = getattr(brapi_sandbox, name)
        assert isinstance(value, str) or value.__doc__, name


def test_the_version_is_the_one_of_the_distribution() -> None:
    assert f'version = "{brapi_sandbox.__version__}"' in (ROOT / "pyproject.toml").read_text()
    released = brapi_sandbox.__version__.partition("+")[0]
    assert f"## {released}" in (ROOT / "CHANGELOG.md").read_text()


def examples() -> list[Any]:
    texts = {"README": README, "serve": dedent(" " * 4 + (serve.__doc__ or ""))}
    return [
        pytest.param(dedent(code), id=f"{name}-{number}")
        for name, text in texts.items()
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL), 1)
    ]


@pytest.mark.parametrize("code", examples())
def test_a_python_example_runs(code: str) -> None:
    with serve(plan="startup") as sandbox:
        code = code.replace("http://127.0.0.1:8790", sandbox.url)
        exec(compile(code, "example", "exec"), {"__name__": "example"})


def test_a_curl_example_runs() -> None:
    commands = re.findall(r"^curl (?:.*\\\n)*.*", README, re.MULTILINE)
    assert len(commands) > 2
    with serve() as sandbox:
        for command in commands:
            command = command.replace("http://127.0.0.1:8790", sandbox.url)
            ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
            assert "error" not in ran.stdout, command


@pytest.mark.parametrize("fault", JSON_FAULTS)
def test_a_fault_of_the_readme_is_one(fault: str) -> None:
    Fault(**json.loads(fault))


def test_the_readme_names_every_fault_setting_and_argument() -> None:
    used = {name for fault in JSON_FAULTS for name in json.loads(fault)}
    assert used == {each.name for each in dataclasses.fields(Fault) if each.init}
    for action in _parser()._actions:
        if action.option_strings[-1] != "--help":
            assert f"`{action.option_strings[-1]}" in README, action.option_strings
    for each in dataclasses.fields(brapi_sandbox.Sandbox):
        if not each.name.startswith("_"):
            assert f"`{each.name}`" in README, each.name
