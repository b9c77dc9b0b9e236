"""Every price in the collection is one that the market made in the window it is filed under."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from market_data_pipeline.market import clock
from market_data_pipeline.market.quote import ROWS
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline, at
from market_data_pipeline_tests.history.truth import (
    filed,
    traded_in,
    traded_on,
    truth,
    windows_between,
)
from market_data_pipeline_tests.observed import checks, logs, metadata

Make = Callable[..., Any]
LAST_ON_TUESDAY = "2026-11-17T17:30-0300"
WEDNESDAY_10_00 = at("2026-11-18T10:00")


def in_the_collection(pipeline: Pipeline) -> dict[Any, float]:
    return filed(ROWS.validate_python(pipeline.documents()))


# Days before, and today's windows that have ended.
WHILE_IT_RUNS = (TUESDAY_15_00, "2026-11-13T17:00-0300", "2026-11-17T14:00-0300", 2 + 16 + 9)
# The days before and after a holiday, the last window of both: Ash Wednesday opens at 13:00.
CARNIVAL = (at("2026-02-19T15:00:05"), "2026-02-13T17:00-0300", "2026-02-18T17:30-0300", 2 + 10)


@pytest.mark.parametrize(("plan", "source"), [("pro", "intraday"), ("free", "daily")])
@pytest.mark.parametrize(("now", "first", "last", "count"), [WHILE_IT_RUNS, CARNIVAL])
def test_a_bar_fills_the_window_that_it_was_traded_in_and_a_daily_one_the_last(
    make_pipeline: Make,
    four_instruments: tuple[str, ...],
    plan: str,
    source: str,
    now: datetime,
    first: str,
    last: str,
    count: int,
) -> None:
    with make_pipeline(now, plan=plan) as pipeline:
        result = pipeline.run(first, last)

        assert result.success
        windows, traded = windows_between(WINDOWS, first, last), traded_in
        if source == "daily":
            windows, traded = [*filter(WINDOWS.is_last, windows)], traded_on
            assert len(windows) == 2
        expected = truth(pipeline.sandbox.market, four_instruments, windows, traded)
        assert in_the_collection(pipeline) == expected
        assert {document["source"] for document in pipeline.documents()} == {source}
        assert len(result.asset_materializations_for_node("quotes")) == count
        assert checks(result)["history_equals_quotes"][0]


@pytest.mark.parametrize(
    ("seconds", "plan", "source"),
    [(-30, "free", "live"), (600, "free", "daily"), (600, "pro", "intraday")],
)
def test_once_the_next_session_has_begun_the_last_window_is_history(
    make_pipeline: Make, four_instruments: tuple[str, ...], seconds: int, plan: str, source: str
) -> None:
    with make_pipeline(WEDNESDAY_10_00 + timedelta(seconds=seconds), plan=plan) as pipeline:
        result = pipeline.run(LAST_ON_TUESDAY)

        windows = [WINDOWS.from_key(LAST_ON_TUESDAY)]
        expected = truth(pipeline.sandbox.market, four_instruments, windows, traded_on)
        assert in_the_collection(pipeline) == expected
        assert {document["source"] for document in pipeline.documents()} == {source}
        sent = len(four_instruments) if source == "live" else 0
        assert len(pipeline.events()) == sent
        assert metadata(result, "kafka_publication")["published"] == sent
        passed, said = checks(result)["every_quote_delivered"]
        assert passed
        assert (said == "There were no live quotes to send.") is (sent == 0)


@pytest.mark.parametrize(
    ("window", "over"),
    [
        (LIVE_ON_TUESDAY, at("2026-11-17T15:30")),
        (LAST_ON_TUESDAY, WEDNESDAY_10_00),
    ],
    ids=["the next window has ended", "the next session has begun"],
)
def test_a_quote_that_was_asked_for_when_the_window_was_live_no_more_is_not_filed_under_it(
    make_pipeline: Make, monkeypatch: pytest.MonkeyPatch, window: str, over: datetime
) -> None:
    before, later = over - timedelta(seconds=1), over + timedelta(seconds=20)
    with make_pipeline(before) as pipeline:
        asked = pipeline.sandbox.requests
        monkeypatch.setattr(clock, "utc_now", lambda: before if len(asked) < 20 else later)
        result = pipeline.run(window)

        assert result.success
        documents = pipeline.documents()
        assert 0 < len(documents) < 50
        assert all(document["observed_at"] < later for document in documents)
        told = metadata(result, "quotes")
        assert told["failures"] == 50 - len(documents)
        reason = "answered too late: the window was no longer live"
        assert {row["reason"] for row in told["failed"]} == {reason}
        assert reason in logs(pipeline, result)
