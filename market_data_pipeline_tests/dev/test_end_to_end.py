"""`make dev` from nothing: the real processes, the run at startup, the collection and the topic."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymongo
import pytest
from brapi_sandbox.answers import quote
from brapi_sandbox.market import Market
from brapi_sandbox.rules import FREE_TICKERS, PLANS

from market_data_pipeline.clock import utc_now
from market_data_pipeline.watchlist import load_watchlist
from market_data_pipeline.windows import trading_windows
from market_data_pipeline_tests.kafka.helpers import read
from market_data_pipeline_tests.supervised import ROOT, Supervisor, settings

TICKERS = {instrument.ticker for instrument in load_watchlist()}
TOPIC = "trading-assets-market-data-v1"
MARKET = Market()


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The environment of a deployment from a copy of the repository's root, without its `.env`."""
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return settings(tmp_path / "state")


@pytest.fixture
def supervisor(tmp_path: Path, env: dict[str, str]) -> Iterator[Supervisor]:
    wait_out_a_boundary()
    supervisor = Supervisor(tmp_path, env)
    yield supervisor
    if supervisor.process.poll() is None:
        supervisor.end(signal.SIGTERM)


def wait_out_a_boundary() -> None:
    """Waits until no window begins or ends within a minute."""
    windows = trading_windows()
    coming = windows.after(windows.last_ended(utc_now()))
    for boundary in (coming.start, coming.end):
        left = boundary - utc_now()
        if timedelta(0) <= left < timedelta(minutes=1):
            time.sleep(left.total_seconds() + 1)


def documents(env: dict[str, str]) -> list[dict[str, Any]]:
    uri = f"mongodb://127.0.0.1:{env['EMBEDDED_MONGO_PORT']}"
    with pymongo.MongoClient[dict[str, Any]](uri, tz_aware=True) as client:
        found = client["market_data_db"]["price_history"].find({})
        return sorted(found, key=lambda document: str(document["_id"]))


def test_from_nothing_to_prices_and_events(
    supervisor: Supervisor, env: dict[str, str], tmp_path: Path
) -> None:
    supervisor.wait_for("The run at startup")
    assert "is finished: 3 assets materialized for" in supervisor.output

    stored = documents(env)
    assert {document["ticker"] for document in stored} == TICKERS
    for document in stored:
        check_against_the_sandbox(document)
    # While the first window of a session runs there is no live one, and nothing to publish.
    live = stored[0]["source"] == "live"
    assert live == (trading_windows().live(stored[0]["observed_at"]) is not None)
    servers = (tmp_path / "state" / "kafka.address").read_text()
    events = [json.loads(seen.event.value) for seen in read(servers, TOPIC)] if live else []
    prices = {document["ticker"]: document["price"] for document in stored}
    assert sorted((event["ticker"], event["price"]) for event in events) == (
        sorted(prices.items()) if live else []
    )
    if live:
        assert len(tail(env, tmp_path)) == 1 + 50

    assert supervisor.end(signal.SIGTERM) == 0
    assert supervisor.left_behind() == []
    check_what_a_restart_finds(tmp_path, env, stored)


def check_against_the_sandbox(document: dict[str, Any]) -> None:
    """The price is the sandbox's when it was asked or, for a bar, at the end of the window."""
    as_of = document["window_end"]
    if document["source"] == "live":
        plan = PLANS["pro" if document["ticker"] in FREE_TICKERS else "free"]
        seconds = plan.refresh_minutes * 60
        refreshed = document["observed_at"].timestamp() // seconds * seconds
        as_of = datetime.fromtimestamp(refreshed, UTC)
    expected = quote(MARKET, document["ticker"], as_of)
    assert document["price"] == expected["regularMarketPrice"]
    assert document["volume"] == expected["regularMarketVolume"]
    assert document["name"] == expected["longName"]


def tail(env: dict[str, str], folder: Path) -> list[str]:
    command = [sys.executable, "-m", "market_data_pipeline_dev.tail", "--from-beginning"]
    shown = subprocess.run(
        [*command, "--count", "50"], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )
    assert shown.stderr == ""
    return shown.stdout.splitlines()


def check_what_a_restart_finds(
    folder: Path, env: dict[str, str], stored: list[dict[str, Any]]
) -> None:
    again = Supervisor(folder, env)
    again.wait_for("dagster.log")
    try:
        kept = {document["_id"]: document for document in documents(env)}
        with sqlite3.connect(folder / "state/sandbox/dagster/history/runs.db") as runs:
            statuses = runs.execute("select status from runs").fetchall()
    finally:
        assert again.end(signal.SIGINT) == 0
    assert [kept[document["_id"]] for document in stored] == stored
    assert ("SUCCESS",) in statuses
