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
    env = settings(home) | {
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
        command, cwd=home, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def keys_of_past_sessions() -> list[str]:
    """The last windows of two sessions that are over: each ticker is asked for once."""
    today = datetime.now(UTC).date()
    sessions = (WINDOWS.of_session(today - timedelta(days=n)) for n in range(1, 15))
    return [session[-1].key for session in sessions if session][1:3]


def now_that_one_waits(instance: dg.DagsterInstance) -> datetime:
    """The present instant, as soon as a run waits for the other: nothing is answered before."""
    waiting = "Waiting for another run to release market_data_brapi"
    wait_until(lambda: said(instance, waiting), waiting)
    return datetime.now(UTC)


def test_the_rate_holds_over_two_runs_and_one_says_that_it_waits(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").touch()
    with (
        dg.DagsterInstance.from_config(str(tmp_path)) as instance,
        serve(burst=1_000, now=lambda: now_that_one_waits(instance)) as sandbox,
    ):
        runs = [
            start_run(tmp_path, sandbox, tickers, key)
            for tickers, key in zip((FIRST, SECOND), keys_of_past_sessions(), strict=True)
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
