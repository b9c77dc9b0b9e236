"""Every price in the collection is one that the market made in the window it is filed under."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.market import clock
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline
from market_data_pipeline_tests.history.truth import (
    filed,
    traded_in,
    traded_on,
    windows_between,
)
from market_data_pipeline_tests.observed import checks, logs, metadata

Make = Callable[..., Any]
FIRST_ON_TUESDAY, LAST_BEFORE_LIVE = "2026-11-17T10:00-0300", "2026-11-17T14:00-0300"
# Carnival: Monday and Tuesday are holidays, Wednesday opens at 13:00.
FRIDAY_BEFORE, ASH_WEDNESDAY = "2026-02-13T17:00-0300", "2026-02-18T17:30-0300"
THURSDAY_AFTER = datetime(2026, 2, 19, 18, 0, 5, tzinfo=UTC)
LAST_ON_TUESDAY = "2026-11-17T17:30-0300"


def intraday_truth(
    pipeline: Pipeline, tickers: tuple[str, ...], first: str, last: str
) -> Mapping[Any, float]:
    windows = windows_between(WINDOWS, first, last)
    market = pipeline.sandbox.market
    pairs = ((ticker, window) for ticker in tickers for window in windows)
    prices = {pair: traded_in(market, *pair) for pair in pairs}
    return {pair: price for pair, price in prices.items() if price is not None}


@pytest.mark.parametrize(
    ("now", "first", "last", "count"),
    [
        # Monday's last window, and today's that have ended, while the session runs.
        (TUESDAY_15_00, "2026-11-16T17:00-0300", LAST_BEFORE_LIVE, 2 + 9),
        # The days before and after a holiday, the last window of both, a late opening.
        (THURSDAY_AFTER, FRIDAY_BEFORE, ASH_WEDNESDAY, 2 + 10),
    ],
    ids=["while the session runs", "carnival"],
)
def test_intraday_bars_fill_the_windows_they_were_traded_in(
    make_pipeline: Make,
    four_instruments: tuple[str, ...],
    now: datetime,
    first: str,
    last: str,
    count: int,
) -> None:
    with make_pipeline(now, plan="pro") as pipeline:
        result = pipeline.run(first, last)

        assert result.success
        assert filed(pipeline.documents()) == intraday_truth(
            pipeline, four_instruments, first, last
        )
        assert {document["source"] for document in pipeline.documents()} == {"intraday"}
        assert len(result.asset_materializations_for_node("quotes")) == count
        assert checks(result)["history_equals_quotes"][0]


@pytest.mark.parametrize(
    ("now", "first", "last"),
    [
        (TUESDAY_15_00, "2026-11-13T17:00-0300", LAST_BEFORE_LIVE),
        (THURSDAY_AFTER, FRIDAY_BEFORE, ASH_WEDNESDAY),
    ],
    ids=["while the session runs", "carnival"],
)
def test_a_daily_bar_fills_the_last_window_of_its_session_alone(
    make_pipeline: Make, four_instruments: tuple[str, ...], now: datetime, first: str, last: str
) -> None:
    with make_pipeline(now) as pipeline:
        result = pipeline.run(first, last)

        assert result.success
        closing = [
            window for window in windows_between(WINDOWS, first, last) if WINDOWS.is_last(window)
        ]
        market = pipeline.sandbox.market
        assert len(closing) == 2
        assert filed(pipeline.documents()) == {
            (ticker, window): traded_on(market, ticker, window)
            for ticker in four_instruments
            for window in closing
        }
        assert {document["source"] for document in pipeline.documents()} == {"daily"}


@pytest.mark.parametrize(("plan", "source"), [("free", "daily"), ("pro", "intraday")])
def test_once_a_session_has_begun_the_last_one_is_history(
    make_pipeline: Make, four_instruments: tuple[str, ...], plan: str, source: str
) -> None:
    ten_past_ten = datetime(2026, 11, 18, 13, 10, tzinfo=UTC)
    with make_pipeline(ten_past_ten, plan=plan) as pipeline:
        result = pipeline.run(LAST_ON_TUESDAY)

        documents = pipeline.documents()
        window = WINDOWS.from_key(LAST_ON_TUESDAY)
        assert {document["source"] for document in documents} == {source}
        assert filed(documents) == {
            (ticker, window): price
            for ticker in four_instruments
            if (price := traded_on(pipeline.sandbox.market, ticker, window))
        }
        assert pipeline.events() == []
        assert metadata(result, "kafka_publication")["published"] == 0
        assert checks(result)["every_quote_delivered"] == (
            True,
            "There were no live quotes to send.",
        )


def test_until_the_next_session_begins_the_last_window_is_live(
    make_pipeline: Make, four_instruments: tuple[str, ...]
) -> None:
    with make_pipeline(datetime(2026, 11, 18, 12, 59, 30, tzinfo=UTC)) as pipeline:
        pipeline.run(LAST_ON_TUESDAY)

        documents = pipeline.documents()
        window = WINDOWS.from_key(LAST_ON_TUESDAY)
        assert {document["source"] for document in documents} == {"live"}
        assert all(document["updated_at"] < window.end for document in documents)
        assert len(pipeline.events()) == len(four_instruments)


@contextmanager
def clock_that_moves_on(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, at_request: int, instant: datetime
) -> Iterator[None]:
    before = clock.utc_now()
    monkeypatch.setattr(
        clock,
        "utc_now",
        lambda: before if len(pipeline.sandbox.requests) < at_request else instant,
    )
    yield


@pytest.mark.parametrize(
    ("window", "now", "later"),
    [
        (
            LIVE_ON_TUESDAY,
            datetime(2026, 11, 17, 18, 29, 59, tzinfo=UTC),
            datetime(2026, 11, 17, 18, 30, 20, tzinfo=UTC),
        ),
        (
            LAST_ON_TUESDAY,
            datetime(2026, 11, 18, 12, 59, 59, tzinfo=UTC),
            datetime(2026, 11, 18, 13, 0, 20, tzinfo=UTC),
        ),
    ],
    ids=["the next window has ended", "the next session has begun"],
)
def test_a_quote_that_was_asked_for_when_the_window_was_live_no_more_is_not_filed_under_it(
    make_pipeline: Make,
    monkeypatch: pytest.MonkeyPatch,
    window: str,
    now: datetime,
    later: datetime,
) -> None:
    with (
        make_pipeline(now) as pipeline,
        clock_that_moves_on(pipeline, monkeypatch, at_request=20, instant=later),
    ):
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


def test_a_price_of_the_new_session_is_not_filed_under_the_last_one(
    make_pipeline: Make, four_instruments: tuple[str, ...]
) -> None:
    with make_pipeline(datetime(2026, 11, 18, 12, 59, 59, tzinfo=UTC)) as pipeline:
        opening = {"regularMarketTime": "2026-11-18T13:00:01.000Z"}
        pipeline.sandbox.faults = [Fault(ticker="BBAS3", fields=opening)]
        result = pipeline.run(LAST_ON_TUESDAY)

        stored = {document["ticker"] for document in pipeline.documents()}
        assert stored == {*four_instruments} - {"BBAS3"}
        assert [row["ticker"] for row in metadata(result, "quotes")["failed"]] == ["BBAS3"]
