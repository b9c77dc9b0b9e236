"""`make dev` in a checkout, as real processes: from nothing, with another Brapi, and back again."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymongo
import pytest
from brapi_sandbox import serve
from brapi_sandbox.answers import quote
from brapi_sandbox.market import Market
from brapi_sandbox.rules import FREE_TICKERS, PLANS

from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline_tests.publication.helpers import Seen, read
from market_data_pipeline_tests.supervised import ROOT, Supervisor, settings

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
# One of them is an instrument that only the sandbox of this watchlist has.
TICKERS = [*load_watchlist().tickers, "WXYZ3"]
TOPIC = "of-the-shell"
MARKET = Market(["WXYZ3"])
EXAMPLE = re.findall(r"^# ([A-Z0-9_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of the tracked files as they are now, below `tmp_path`."""
    checkout = tmp_path / "checkout"
    for name in filter(None, git(ROOT, "ls-files", "-z").split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_bytes((ROOT / name).read_bytes())
    git(checkout, "init", "--quiet")
    git(checkout, "add", "--all")
    return checkout


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def changes(checkout: Path) -> str:
    """The files that are new, changed or gone."""
    kinds = ("--others", "--exclude-standard", "--modified", "--deleted")
    return git(checkout, "ls-files", *kinds)


@pytest.fixture
def env(checkout: Path, tmp_path: Path) -> dict[str, str]:
    """A shell with a watchlist and a topic; the state is in the checkout's `.dev`."""
    watchlist = tmp_path / "watchlist.csv"
    watchlist.write_text("\n".join(["ticker", *TICKERS]) + "\n")
    mine = {"PYTHONPATH": str(checkout), "WATCHLIST_FILE": str(watchlist), "KAFKA_TOPIC": TOPIC}
    return settings(checkout / ".dev") | mine


@contextmanager
def make_dev(checkout: Path, env: dict[str, str]) -> Iterator[Supervisor]:
    """`make dev` until its run at startup is done or found needless; then it is stopped.

    Its `.env` has a blank line for every setting, and other lines as soon as it has been read.
    """
    (checkout / ".env").write_text("".join(f"{name}=\n" for name in EXAMPLE))
    supervisor = Supervisor(checkout.parent, env, cwd=checkout)
    try:
        supervisor.wait_for("its log is")
        # A real service that is named while made-up prices are on their way is not written to.
        later = "MONGO_URI=mongodb://db.example/\nKAFKA_TOPIC=\nMONGO_DB=x\n"
        (checkout / ".env").write_text(later)
        supervisor.wait_for("Startup run ")
        yield supervisor
    finally:
        assert supervisor.end(signal.SIGTERM) == 0
    assert supervisor.left_behind() == {}


def documents(env: dict[str, str], start: datetime | None = None) -> list[dict[str, Any]]:
    """The documents of one window, or all, by `_id`."""
    uri = f"mongodb://127.0.0.1:{env['EMBEDDED_MONGO_PORT']}"
    with pymongo.MongoClient[dict[str, Any]](uri, tz_aware=True) as client:
        found = client["market_data_db"]["price_history"].find(
            {"window_start": start} if start else {}
        )
        return sorted(found, key=lambda document: str(document["_id"]))


def begin(checkout: Path, env: dict[str, str]) -> list[dict[str, Any]]:
    """Starts it for the first time: what it has stored by then of the window that it says."""
    with make_dev(checkout, env) as supervisor:
        # Another window may end meanwhile.
        made_up = documents(env, WINDOWS.from_key(supervisor.first_window()).start)
        check_prices(made_up)
        check_events(checkout, env, made_up)
    return made_up


def test_prices_and_events_from_nothing(checkout: Path, env: dict[str, str]) -> None:
    begin(checkout, env)

    assert changes(checkout) == ""


@pytest.mark.services  # for its time: it needs none
def test_nothing_is_lost_when_brapi_is_another_for_a_while(
    checkout: Path, env: dict[str, str]
) -> None:
    made_up = begin(checkout, env)
    with serve(token="right", market=MARKET) as brapi:
        # It is not Brapi's own, so that it has to be allowed to reach the sinks.
        real = {"BRAPI_TOKEN": "right", "PUBLISH_MADE_UP_PRICES": "true"}
        with make_dev(checkout, env | real | {"BRAPI_BASE_URL": brapi.url}) as supervisor:
            supervisor.first_window()
            of_brapi = documents(env)
        assert brapi.requests
        assert {each["ticker"] for each in of_brapi} == set(TICKERS)
        assert not {each["run_id"] for each in of_brapi} & {each["run_id"] for each in made_up}

    with make_dev(checkout, env):
        assert documents(env, made_up[0]["window_start"]) == made_up
        with sqlite3.connect(checkout / ".dev/sandbox/dagster/history/runs.db") as runs:
            assert ("SUCCESS",) in runs.execute("select status from runs").fetchall()

    command = [sys.executable, "-m", "dagster", "definitions", "validate"]
    subprocess.run([*command, "-w", "workspace.yaml"], cwd=checkout, env=env, check=True)
    assert changes(checkout) == ""


def check_prices(stored: list[dict[str, Any]]) -> None:
    """Each price is the sandbox's when it was asked or, for a bar, at the end of the window."""
    assert {document["ticker"] for document in stored} == set(TICKERS)
    for document in stored:
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


def check_events(checkout: Path, env: dict[str, str], stored: list[dict[str, Any]]) -> None:
    """Live prices are on the topic, bars are not."""
    # While the first window of a session runs there is no live one, and nothing to publish.
    live = stored[0]["source"] == "live"
    observed = stored[0]["observed_at"]
    last = WINDOWS.last_ended(observed)
    assert last
    assert live == WINDOWS.is_live(last, observed)
    if not live:
        return
    stand_ins = json.loads((checkout / ".dev" / "sandbox" / "stand-ins.json").read_text())
    assert stand_ins["KAFKA_UPDATED_AT_FORMAT"] == "epoch"
    servers = stand_ins["KAFKA_BOOTSTRAP_SERVERS"]
    events = [json.loads(seen.event.value) for seen in read(servers, TOPIC) if is_of(seen, stored)]
    assert sorted((event["ticker"], event["price"]) for event in events) == sorted(
        (document["ticker"], document["price"]) for document in stored
    )
    assert {type(event["updated_at"]) for event in events} == {int}
    command = [sys.executable, "-m", "market_data_pipeline_dev.tail", "--from-beginning"]
    command += ["--count", str(len(stored))]
    shown = subprocess.run(
        command, cwd=checkout, env=env, capture_output=True, text=True, timeout=60
    )
    assert shown.stderr == ""
    assert len(shown.stdout.splitlines()) == 1 + len(stored)


def is_of(seen: Seen, stored: list[dict[str, Any]]) -> bool:
    """Whether the event is of the window of these documents."""
    start = dict(seen.event.headers)["ce_windowstart"].decode()
    return bool(datetime.fromisoformat(start) == stored[0]["window_start"])
