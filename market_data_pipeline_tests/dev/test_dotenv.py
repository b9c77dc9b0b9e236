"""`.env`: what counts, in the real processes too, and which names are told to be mistaken."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from dotenv import dotenv_values

from market_data_pipeline import dotenv
from market_data_pipeline_dev.process import Child
from market_data_pipeline_tests.deploy.compose import COMPOSE, PROCESSES
from market_data_pipeline_tests.supervised import ROOT, Supervisor, free_ports, settings, wait_until

EXAMPLE = re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
SHELL = {
    "BRAPI_TOKEN": "of-the-shell",
    "MONGO_HOST": "shell.example",
    "KAFKA_TOPIC": "of-the-shell",
}
# Each run writes the settings that it has into a file, and the next run follows.
PROBE = f"""
import json, os, pathlib
import dagster as dg
NAMES = {EXAMPLE!r}

@dg.asset
def probe(context):
    found = {{name: os.environ[name] for name in NAMES if name in os.environ}}
    draft = pathlib.Path("draft")
    draft.write_text(json.dumps(found))
    draft.replace(f"run-{{len(list(pathlib.Path().glob('run-*')))}}.json")

job = dg.define_asset_job("job", selection=["probe"])

@dg.sensor(job=job, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=1)
def again(context):
    return dg.RunRequest(run_key=str(len(list(pathlib.Path().glob("run-*")))))

defs = dg.Definitions([probe], jobs=[job], sensors=[again], executor=dg.in_process_executor)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to run Dagster in, with a `.env` that has a blank line for every setting."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(ROOT / "dagster.yaml", folder)
    (folder / "workspace.yaml").write_text("load_from: [python_file: definitions.py]\n")
    (folder / "definitions.py").write_text(PROBE)
    (folder / ".env").write_text("".join(f"{name}=\n" for name in EXAMPLE))
    return folder


def settings_of_run(folder: Path, number: int) -> dict[str, str]:
    file = folder / f"run-{number}.json"
    wait_until(file.exists, str(file))
    found = json.loads(file.read_text())
    assert isinstance(found, dict)
    return found


def shell(tmp_path: Path, **more: str) -> dict[str, str]:
    """The environment of somebody's shell: no setting but `SHELL` and `more`."""
    env = settings(tmp_path / "state")
    return {n: v for n, v in env.items() if n == "PYTHONPATH" or n not in EXAMPLE} | SHELL | more


def test_blank_lines_leave_the_stand_ins_of_make_dev_alone(folder: Path, tmp_path: Path) -> None:
    env = settings(tmp_path / "state") | {"KAFKA_TOPIC": "of-the-shell", "BRAPI_PLAN": ""}
    supervisor = Supervisor(folder, env)
    try:
        found = settings_of_run(folder, 0)
        expected = {name: env[name] for name in EXAMPLE if env.get(name)} | {
            "BRAPI_BASE_URL": f"http://127.0.0.1:{env['SANDBOX_PORT']}",
            "BRAPI_TOKEN": "sandbox",
            "KAFKA_BOOTSTRAP_SERVERS": (tmp_path / "state" / "kafka.address").read_text(),
            "MONGO_URI": f"mongodb://127.0.0.1:{env['EMBEDDED_MONGO_PORT']}",
            "PUBLISH_MADE_UP_PRICES": "true",
        }
        assert found == expected
        # A real service that is named while made-up prices are on their way is not written to.
        (folder / ".env").write_text("MONGO_URI=mongodb://db.example/\nKAFKA_TOPIC=\nMONGO_DB=x\n")
        later = len(list(folder.glob("run-*.json"))) + 1
        assert settings_of_run(folder, later) == expected
    finally:
        assert supervisor.end(signal.SIGTERM) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process knows how it was started")
def test_blank_lines_do_not_hide_the_shell_from_dagster_dev(folder: Path, tmp_path: Path) -> None:
    env, (port,) = shell(tmp_path), free_ports(1)
    command = ["env", f"--chdir={folder}", sys.executable, "-m", "dagster", "dev"]
    command += ["-w", "workspace.yaml", "-p", str(port)]
    dagster = Child("dagster dev", command, env, tmp_path / "log", None, signal.SIGINT, patience=20)
    try:
        assert settings_of_run(folder, 0) == SHELL
    finally:
        dagster.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process knows how it was started")
@pytest.mark.parametrize(
    ("command", "with_home"),
    [
        (["asset", "materialize", "-f", "definitions.py", "--select", "probe"], False),
        (["job", "execute", "-f", "definitions.py", "-j", "job"], True),
    ],
)
def test_blank_lines_do_not_hide_the_shell_from_the_cli(
    folder: Path, tmp_path: Path, command: list[str], with_home: bool
) -> None:
    env = shell(tmp_path)
    if with_home:
        home = tmp_path / "home"
        home.mkdir()
        shutil.copy(ROOT / "dagster.yaml", home)
        env["DAGSTER_HOME"] = str(home)
    with (folder / ".env").open("a") as file:
        file.write("MONGO_DB=of-the-file\nKAFKA_TOPIC=of-the-file\n")
    subprocess.run([sys.executable, "-m", "dagster", *command], cwd=folder, env=env, check=True)
    of_the_file = {"MONGO_DB": "of-the-file", "KAFKA_TOPIC": "of-the-file"}
    assert settings_of_run(folder, 0) == SHELL | of_the_file


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("BRAPI_TOKEN=\nMONGO_DB= \nKAFKA_TOPIC=file\nMONGO_HOST\n")
    for name in ("BRAPI_TOKEN", "KAFKA_TOPIC", "MONGO_HOST"):
        monkeypatch.setenv(name, "shell")
    monkeypatch.setenv("BRAPI_PLAN", " ")
    found = {name: value for name, value in dotenv.environment().items() if name in EXAMPLE}
    assert found == {"BRAPI_TOKEN": "shell", "KAFKA_TOPIC": "file", "MONGO_HOST": "shell"}


def test_final_settings_do_without_what_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dotenv, "_environment_at_start", dict)
    for name, value in dotenv.final({"MONGO_URI": "of-make-dev", "HOME": "/x"}).items():
        monkeypatch.setenv(name, value)
    # As Dagster does, from lines that were written later.
    lines = {"MONGO_URI": "", "MONGO_DB": "later", "BRAPI_TOKEN": "later", "OTHER": "later"}
    (tmp_path / ".env").write_text("".join(f"{name}={lines[name]}\n" for name in lines))
    for name in lines:
        monkeypatch.setenv(name, lines[name])

    loader = dotenv.DotEnvLoader()

    assert {name: os.environ.get(name) for name in lines} == {
        "MONGO_URI": "of-make-dev",
        "MONGO_DB": None,
        "BRAPI_TOKEN": None,
        "OTHER": "later",
    }
    assert loader.get_secrets_for_environment("any") == {
        "MONGO_URI": "of-make-dev",
        "OTHER": "later",
    }


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BRAPI_TOKN", "BRAPI_TOKEN"),
        ("BRAPI_TIMEOUT", "BRAPI_TIMEOUT_SECONDS"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("MONGODB_URI", "MONGO_URI"),
        ("PUBLISH_MADEUP_PRICES", "PUBLISH_MADE_UP_PRICES"),
    ],
)
def test_a_mistaken_name_is_told_with_the_one_that_was_meant(name: str, meant: str) -> None:
    [sentence] = dotenv.misspelled({name: "x", "PATH": "/bin", "BRAPI_TOKEM": " "})
    assert sentence == f"{name} is not a setting, nothing reads it: did you mean {meant}?"


def test_a_name_with_a_beginning_of_ours_is_told() -> None:
    assert dotenv.misspelled({"BRAPI_XYZZY_QQ": "1"}) == [
        "BRAPI_XYZZY_QQ is not a setting, nothing reads it."
    ]


def test_names_of_others_and_of_the_deployment_are_not_told() -> None:
    names = {name for each in PROCESSES for name in COMPOSE["services"][each]["environment"]}
    names |= set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    names |= {"KAFKA_HOME", "KAFKA_OPTS", "MONGO_HOME", "DAGSTER_HOME", "TEST_MONGO_URI"}
    for file in (ROOT / "deploy" / "watchlists").glob("*.env"):
        names |= dotenv_values(file).keys()
    assert dotenv.misspelled(dict.fromkeys([*names, *EXAMPLE], "x")) == []


def test_the_definitions_warn(
    load_definitions: Callable[..., ModuleType], caplog: pytest.LogCaptureFixture
) -> None:
    load_definitions(KAFKA_BOOTSTRAP_SERVER="x")

    assert "did you mean KAFKA_BOOTSTRAP_SERVERS?" in caplog.text
