"""Two real runs at the same time, as processes on one instance: Brapi's rate holds over both."""

import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from brapi_sandbox.sandbox import Sandbox, serve

from market_data_pipeline.windows import trading_windows
from market_data_pipeline_tests.supervised import ROOT, settings

WINDOWS = trading_windows()
INTERVAL = 0.2
FIRST = ["ABEV3", "BBAS3", "BBDC4", "B3SA3", "WEGE3"]
SECOND = ["RENT3", "RADL3", "RDOR3", "LREN3", "TIMS3"]


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


def now_that_both_run(instance: dg.DagsterInstance) -> datetime:
    """The present instant, as soon as two runs have started: nothing is answered before."""
    until = time.monotonic() + 60
    while sum(bool(record.start_time) for record in instance.get_run_records()) < 2:
        assert time.monotonic() < until, "the second run did not start"
        time.sleep(0.1)
    return datetime.now(UTC)


def test_the_rate_holds_over_two_runs(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    # Two sessions that are over: each paper is asked for once, for its history.
    today = datetime.now(UTC).date()
    sessions = (WINDOWS.of_session(today - timedelta(days=n)) for n in range(1, 15))
    keys = [session[-1].key for session in sessions if session][1:3]
    with (
        dg.DagsterInstance.from_config(str(tmp_path)) as instance,
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
    # One run after the other, and the second no sooner after the first than its own requests.
    assert set(asked[:5]) in (set(FIRST), set(SECOND))
    assert starts[-1] - starts[0] > 0.7 * INTERVAL * (len(starts) - 1)
    assert starts[5] - starts[4] > 0.7 * INTERVAL
