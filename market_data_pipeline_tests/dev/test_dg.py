"""`dg` beside `dagster`: both load the same definitions, also beside a running `make dev`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pymongo
import pytest

from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, midnight
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline_dev.process import Child
from market_data_pipeline_tests.supervised import ROOT, Supervisor, free_ports, settings

pytestmark = pytest.mark.services  # for their time: they need none
BIN = Path(sys.executable).parent
LOCATION = "market_data_pipeline.definitions"
TO_LAUNCH = "market_data_pipeline_dev.run"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root of the repository as Dagster's commands see it, without anybody's `.env`."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("dg.toml", "dagster.yaml", "pyproject.toml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / "market_data_pipeline").symlink_to(ROOT / "market_data_pipeline")
    return folder


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    watchlist = tmp_path / "watchlist.csv"
    watchlist.write_text("ticker\nGGBR4\nPETR4\n")
    return settings(tmp_path / "state") | {"WATCHLIST_FILE": str(watchlist)}


def said(
    command: Sequence[str], folder: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=folder, env=env, capture_output=True, text=True
    )


def test_dg_lists_and_checks_the_definitions(folder: Path, env: dict[str, str]) -> None:
    listed = said(["dg", "list", "defs", "--json"], folder, env)
    assert {each["asset_key"] for each in json.loads(listed.stdout)["assets"]} == {
        "quotes",
        "mongo_price_history",
        "kafka_publication",
        "official_close",
        "session_report",
    }
    checked = said(["dg", "check", "defs"], folder, env)
    assert checked.returncode == 0
    assert checked.stdout.endswith("All definitions loaded successfully.\n")


def test_dagster_still_reads_workspace_yaml(folder: Path, env: dict[str, str]) -> None:
    """It would not if pyproject.toml had a table for `dg`."""
    definitions = "import dagster as dg\ndefs = dg.Definitions()\n"
    (folder / "somewhere_else.py").write_text(definitions)
    (folder / "workspace.yaml").write_text("load_from: [python_file: somewhere_else.py]\n")

    validated = said(["dagster", "definitions", "validate"], folder, env)

    assert "Validation successful for code location somewhere_else.py" in validated.stdout
    assert LOCATION not in validated.stdout


def test_dg_dev_has_the_code_location_of_the_workspace_and_asks_for_the_token(
    folder: Path, env: dict[str, str], tmp_path: Path
) -> None:
    (port,), log = free_ports(1), tmp_path / "log"
    command = [str(BIN / "dg"), "dev", "--port", str(port)]
    environment = env | {"DAGSTER_HOME": str(folder)}
    child = Child("dg dev", command, environment, log, None, signal.SIGINT, 20, folder)
    try:
        child.said(f"(Serving dagster-webserver on http://127.0.0.1:{port})")
        text = log.read_text()
    finally:
        child.stop()
    assert "BRAPI_TOKEN is not set. Put your token into .env" in text
    assert "Warning:" not in text


def test_the_documented_line_materializes_a_window_beside_make_dev(
    folder: Path, env: dict[str, str], tmp_path: Path
) -> None:
    document = (ROOT / "docs" / "operating.md").read_text("utf-8")
    ((python, *words),) = map(
        shlex.split, re.findall(rf"^\S+python -m {TO_LAUNCH} .*$", document, re.MULTILINE)
    )
    assert python == ".venv/bin/python"
    today = datetime.now(EXCHANGE_TIMEZONE).date()
    window = WINDOWS.last_ended(midnight(today))
    assert window
    words[-1] = window.key

    def launch() -> subprocess.CompletedProcess[str]:
        return said(["python", *words], folder, env)

    assert launch().stderr == "`make dev` does not run with these settings: start it.\n"
    supervisor = Supervisor(tmp_path, env, cwd=folder)
    try:
        supervisor.wait_for("its log is")
        # What is configured later is not written to: the prices are made up.
        (folder / ".env").write_text("MONGO_URI=mongodb://db.example/\nBRAPI_PLAN=\n")
        launched = launch()
        assert launched.returncode == 0, launched.stderr
        uri = f"mongodb://127.0.0.1:{env['EMBEDDED_MONGO_PORT']}"
        with pymongo.MongoClient[dict[str, Any]](uri, tz_aware=True) as client:
            found = client["market_data_db"]["price_history"].find({"window_start": window.start})
            assert {document["ticker"] for document in found} == {"GGBR4", "PETR4"}
    finally:
        assert supervisor.end(signal.SIGTERM) == 0
    assert launch().returncode == 1
