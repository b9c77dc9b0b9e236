"""The supervisor as a real process: what it refuses, what it stops on, what it leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from market_data_pipeline.settings import Settings
from market_data_pipeline_dev.dev import main, refuse_made_up_prices
from market_data_pipeline_dev.settings import state_of_brapi
from market_data_pipeline_tests.supervised import ROOT, Supervisor, settings, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
services = pytest.mark.services  # for their time: they need none

DEFINITIONS = """
import time
import dagster as dg

@dg.asset
def endless():
    open("started", "w").close()
    time.sleep(600)

job = dg.define_asset_job("job", selection=["endless"])

@dg.sensor(job=job, default_status=dg.DefaultSensorStatus.RUNNING)
def once(context):
    return dg.RunRequest(run_key="once")

defs = dg.Definitions([endless], jobs=[job], sensors=[once], executor=dg.in_process_executor)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository whose only asset never ends."""
    (tmp_path / "workspace.yaml").write_text("load_from: [python_file: definitions.py]\n")
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return settings(tmp_path / "state")


@pytest.fixture
def supervisor(folder: Path, env: dict[str, str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(folder, env)
    yield supervisor
    if supervisor.process.poll() is None:
        supervisor.end(signal.SIGTERM)


def wait_for_the_run(supervisor: Supervisor, folder: Path) -> None:
    """Waits until the run is under way."""

    def started() -> bool:
        assert supervisor.process.poll() is None, supervisor.output
        return (folder / "state" / "sandbox" / "started").exists()

    wait_until(started, "the start of the run")


@services
def test_it_says_what_stands_in_stops_a_run_under_way_and_leaves_no_process_behind(
    supervisor: Supervisor, folder: Path, env: dict[str, str]
) -> None:
    wait_for_the_run(supervisor, folder)
    assert len(supervisor.left_behind()) > 8
    for setting in ("BRAPI_TOKEN", "MONGO_URI", "KAFKA_BOOTSTRAP_SERVERS"):
        assert f"{setting} is not set" in supervisor.output

    second = Supervisor(folder, env)
    assert second.process.wait(60) == 1
    assert f"Another `make dev` is using {folder / 'state'}:" in second.output
    assert second.output.count("\n") == 1

    assert supervisor.end(signal.SIGTERM) == 0
    assert supervisor.left_behind() == {}
    assert supervisor.output.endswith("Stopping.\nStopped.\n")
    assert statuses_of_runs(folder) == ["FAILURE"]


@services
def test_killed_it_leaves_no_run_that_seems_to_go_on_and_it_ends_when_a_part_of_it_dies(
    supervisor: Supervisor, folder: Path, env: dict[str, str]
) -> None:
    wait_for_the_run(supervisor, folder)
    assert supervisor.end(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not supervisor.left_behind(), "the end of its processes")
    assert statuses_of_runs(folder) == ["STARTED"]

    following = Supervisor(folder, env)
    following.wait_for("1 run(s) in progress when `make dev` was killed")
    following.wait_for(f"http://127.0.0.1:{env['DAGSTER_PORT']}")
    with (folder / "state" / "mongo.log").open("a") as log:
        log.write("the last words\n")
    (mongo,) = [
        pid for pid, command in following.left_behind().items() if "pipeline_dev.mongo" in command
    ]
    os.kill(mongo, signal.SIGKILL)
    assert following.process.wait(60) == 1
    assert "The embedded MongoDB has ended with status -9." in following.output
    assert "the last words" in following.output
    assert following.left_behind() == {}
    assert statuses_of_runs(folder) == ["FAILURE"]


def statuses_of_runs(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "state" / "sandbox" / "dagster" / "history" / "runs.db") as runs:
        return [status for (status,) in runs.execute("select status from runs")]


@services
def test_what_is_configured_is_not_stood_in_for(folder: Path, env: dict[str, str]) -> None:
    (folder / ".env").write_text(
        "BRAPI_TOKEN=secret-token\n"
        "BRAPI_BASE_URL=https://brapi.dev/\n"
        "MONGO_URI=mongodb://user:secret-password@db.example/\n"
        "KAFKA_BOOTSTRAP_SERVERS=kafka.example:9092\n"
    )
    # Nobody needs the ports of the stand-ins then.
    env |= {"SANDBOX_PORT": env["DAGSTER_PORT"], "EMBEDDED_MONGO_PORT": env["DAGSTER_PORT"]}
    supervisor = Supervisor(folder, env)
    supervisor.wait_for(f"{folder}/state/brapi/dagster.log")
    running = "\n".join(supervisor.left_behind().values())
    assert supervisor.end(signal.SIGINT) == 0
    assert "market_data_pipeline_dev.dev" in running
    for stand_in in ("brapi_sandbox", "pipeline_dev.mongo"):
        assert stand_in not in running
    assert not (folder / "state" / "sandbox").exists()
    assert "kafka.example:9092" in supervisor.output
    assert "secret" not in supervisor.output
    assert supervisor.left_behind() == {}


@pytest.fixture
def refusal(
    folder: Path,
    here: Path,
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[pytest.CaptureFixture[str]]:
    """Where the sentence of a supervisor that does not start is to be read."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    yield capfd
    assert not [*(folder / "state").glob("*/dagster")]


@pytest.mark.parametrize("name", ["DAGSTER_PORT", "SANDBOX_PORT", "EMBEDDED_MONGO_PORT"])
def test_a_taken_port(refusal: pytest.CaptureFixture[str], env: dict[str, str], name: str) -> None:
    with socket.create_server(("127.0.0.1", int(env[name]))):
        assert main() == 1
    assert refusal.readouterr().err == (
        f"Port {env[name]} cannot be used (Address already in use): set {name} to a free port.\n"
    )


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SYNC_INTERVAL_MINUTES", "7", "SYNC_INTERVAL_MINUTES cannot be used: set it to one of 5,"),
        ("KAFKA_CONFIG_ACKS", "1", "KAFKA_CONFIG_ACKS may not be set: the publication's "),
        ("DAGSTER_PORT", "http", "DAGSTER_PORT cannot be used: set it to a port such as 3000.\n"),
        ("SANDBOX_PORT", "0", "SANDBOX_PORT cannot be used: set it to a port such as 3000.\n"),
        ("WATCHLIST_FILE", "/no/list.csv", "WATCHLIST_FILE /no/list.csv cannot be read"),
        ("MARKET_DATA_HOME", "/dev/null/x", "/dev/null/x cannot be used: Not a directory.\n"),
    ],
)
def test_a_wrong_setting(
    refusal: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    sentence: str,
) -> None:
    monkeypatch.setenv(name, value)
    assert main() == 1
    assert sentence in refusal.readouterr().err


@pytest.mark.parametrize(
    ("configured", "named", "verb"),
    [
        ({"MONGO_HOST": "db.example"}, "MONGO_HOST", "is"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "k:9092", "MONGO_URI": "mongodb://db.example/"},
         "MONGO_URI and KAFKA_BOOTSTRAP_SERVERS", "are"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("published", ["", "false"])
def test_made_up_prices_do_not_go_to_a_real_service(
    refusal: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    configured: dict[str, str],
    named: str,
    verb: str,
    published: str,
) -> None:
    monkeypatch.setenv("BRAPI_TOKN", "mistyped")
    monkeypatch.setenv("PUBLISH_MADE_UP_PRICES", published)
    Path(".env").write_text("".join(f"{name}={value}\n" for name, value in configured.items()))
    assert main() == 1
    told, refused = refusal.readouterr().err.splitlines()
    assert "did you mean BRAPI_TOKEN?" in told
    assert refused == (
        f"{named} {verb} set, but the prices would be made up because BRAPI_TOKEN is not set: set "
        f"BRAPI_TOKEN, unset {named}, or set PUBLISH_MADE_UP_PRICES=true to write made-up prices "
        "there."
    )


def test_made_up_prices_go_where_they_are_wanted() -> None:
    refuse_made_up_prices(Settings(mongo_host="db.example", publish_made_up_prices="True"))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"brapi_token": "secret"}, "brapi"),
        ({"brapi_base_url": "http://127.0.0.1:8790"}, "http-127-0-0-1-8790"),
    ],
)
def test_each_brapi_has_its_state(given: dict[str, str], name: str) -> None:
    assert state_of_brapi(Settings(**given)).name == name


def test_another_folder(refusal: pytest.CaptureFixture[str]) -> None:
    Path("workspace.yaml").unlink()
    assert main() == 1
    assert "run it in the repository's root" in refusal.readouterr().err
