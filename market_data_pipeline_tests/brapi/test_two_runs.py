"""Two real runs at the same time, as processes on one instance: Brapi's rate holds over both."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
from brapi_sandbox.sandbox import Sandbox, serve

from market_data_pipeline.market.windows import trading_windows
from market_data_pipeline_tests.observed import said
from market_data_pipeline_tests.supervised import settings, wait_until

pytestmark = pytest.mark.services  # for their time: they need none
WINDOWS = trading_windows()
INTERVAL = 0.5
FIRST = ["ABEV3", "BBAS3", "BBDC4"]
SECOND = ["RENT3", "RADL3", "RDOR3"]


def start_run(home: Path, sandbox: Sandbox, tickers: list[str], key: str) -> subprocess.Popen[str]:
    """A run of `quotes` for one window and a watchlist of its own, in a process of its own."""
    watchlist = home / f"{tickers[0]}.csv"
    watchlist.write_text("\n".join(["ticker", *tickers]))
    environment = settings(home) | {
        "DAGSTER_HOME": str(home),
        "BRAPI_BASE_URL": sandbox.url,
        "BRAPI_TOKEN": "token-of-two-runs",
        "BRAPI_MIN_INTERVAL_SECONDS": str(INTERVAL),
        "BRAPI_TIMEOUT_SECONDS": "60",
        "QUOTES_PATH": str(home / "quotes"),
        "WATCHLIST_FILE": str(watchlist),
    }
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "quotes"]
    command += ["--partition", key, "-m", "market_data_pipeline.definitions"]
    return subprocess.Popen(
        command,
        cwd=home,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(home: Path) -> dg.DagsterInstance:
    """An instance on files."""
    (home / "dagster.yaml").touch()
    return dg.DagsterInstance.from_config(str(home))


def keys_of_past_sessions() -> list[str]:
    """The last windows of two sessions that are over: each ticker is asked for once."""
    today = datetime.now(UTC).date()
    sessions = (WINDOWS.of_session(today - timedelta(days=n)) for n in range(1, 15))
    return [session[-1].key for session in sessions if session][1:3]


def now_that_both_run(instance: dg.DagsterInstance) -> datetime:
    """The present instant, as soon as two runs have started: nothing is answered before."""
    wait_until(
        lambda: sum(bool(record.start_time) for record in instance.get_run_records()) == 2,
        "the start of the second run",
    )
    return datetime.now(UTC)


def test_the_rate_holds_over_two_runs(tmp_path: Path) -> None:
    keys = keys_of_past_sessions()
    with (
        start(tmp_path) as instance,
        serve(burst=1_000, now=lambda: now_that_both_run(instance)) as sandbox,
    ):
        runs = [
            start_run(tmp_path, sandbox, tickers, key)
            for tickers, key in zip((FIRST, SECOND), keys, strict=True)
        ]
        errors = [run.communicate(timeout=120)[1] for run in runs]

    assert [run.returncode for run in runs] == [0, 0], errors
    starts = [seen.at for seen in sandbox.requests]
    asked = [seen.path.removeprefix("/api/quote/") for seen in sandbox.requests]
    assert sorted(asked) == sorted(FIRST + SECOND)
    # One run after the other.
    assert set(asked[:3]) in (set(FIRST), set(SECOND))
    # The sandbox does not see the first requests arrive while it waits for the second run.
    assert min(later - earlier for earlier, later in pairwise(starts[2:])) > INTERVAL / 2


def test_a_run_says_that_it_waits_and_has_the_turn_of_one_that_was_killed(tmp_path: Path) -> None:
    """No daemon runs here."""
    first_key, second_key = keys_of_past_sessions()
    with start(tmp_path) as instance, serve(burst=1_000, latency=30) as sandbox:
        first = start_run(tmp_path, sandbox, FIRST, first_key)
        wait_until(lambda: sandbox.requests, "a request of the first run")
        second = start_run(tmp_path, sandbox, SECOND, second_key)
        waiting = "Waiting for another run to leave market_data_brapi"
        wait_until(lambda: said(instance, waiting), waiting)
        first.kill()
        sandbox.latency = 0
        errors = second.communicate(timeout=120)[1]
        first.communicate()

    assert second.returncode == 0, errors
