"""The token is nowhere: not in the instance's files, its events, its logs, nor in the output.

The forms that Brapi may repeat it in are in `test_bounds.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.brapi import client
from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline_tests.brapi.table import FAULTS, TICKERS, TIMED_OUT, rows
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, SetWatchlist
from market_data_pipeline_tests.observed import left_by_runs

SECRET = "S3cret-of/the+tests=="
PERCENT = "S3cret-of%2Fthe%2Btests%3D%3D"
ENDS_THE_RUN = [case for case, row in rows().items() if row.costs == "the run" and case in FAULTS]
COSTS_A_TICKER = [
    case
    for case, row in rows().items()
    if row.costs == "one ticker" and case in FAULTS and case not in TIMED_OUT
]


def repeating_the_token(fault: dict[str, Any]) -> dict[str, Any]:
    """The same fault, with the token in what Brapi says."""
    said = f"{SECRET} {PERCENT}"
    body = fault.get("body", {"error": True, "code": fault.get("code", SECRET)})
    if "fields" in fault and "regularMarketTime" not in fault["fields"]:
        return fault | {"fields": {"regularMarketPrice": said, "longName": said}}
    if isinstance(body, str):
        return fault | {"body": body + said}
    if "status" not in fault and "body" not in fault:
        return fault
    return fault | {"body": {**body, "message": said}}


def test_after_runs_that_lost_tickers_and_runs_that_ended_in_every_way(
    make_pipeline: Callable[..., Any],
    instance_in_files: dg.DagsterInstance,
    watchlist: SetWatchlist,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(client, "MAX_ATTEMPTS", 1)
    # The first ones are answered: Brapi is not down.
    instruments = [*load_watchlist().tickers][::-1]
    assert len(instruments) > len(COSTS_A_TICKER) > 10
    assert len(ENDS_THE_RUN) > 5
    with make_pipeline(token=SECRET) as pipeline:
        pipeline.instance, pipeline.brapi = instance_in_files, {"token": SECRET}
        pipeline.sandbox.faults = [
            Fault(**repeating_the_token(FAULTS[case]) | {"ticker": ticker})
            for ticker, case in zip(instruments, COSTS_A_TICKER, strict=False)
        ]
        assert pipeline.run(LIVE_ON_TUESDAY).success
        watchlist(TICKERS)
        for case in ENDS_THE_RUN:
            pipeline.sandbox.faults = [Fault(**repeating_the_token(FAULTS[case]))]
            assert not pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
        for changed in ({"base_url": "http://127.0.0.1:9"}, {"token": f"{SECRET} with a space"}):
            pipeline.brapi |= changed
            assert not pipeline.run(LIVE_ON_TUESDAY, select="quotes").success

    left = left_by_runs(instance_in_files, tmp_path, "".join(capfd.readouterr()))
    for form in (SECRET, PERCENT):
        assert not [place for place, content in left.items() if form.encode() in content]
