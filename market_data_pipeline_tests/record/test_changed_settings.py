"""Sequences in which the settings change between the runs: what is stored keeps its meaning."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.market.price_guard import decide
from market_data_pipeline.operation.session_report import session_report
from market_data_pipeline_tests.conftest import (
    INSTRUMENTS,
    LIVE_ON_TUESDAY,
    TUESDAY_15_00,
    ChangeSettings,
    Pipeline,
    SetClock,
    SetWatchlist,
)
from market_data_pipeline_tests.observed import checks, failure_of, logs, metadata
from market_data_pipeline_tests.record.helpers import (
    HALF_AN_HOUR,
    SECOND,
    THIRD,
    VICTIM,
    accept,
    prices,
    row,
)

DAY = timedelta(days=1)
SINKS = "key:kafka_publication or key:mongo_price_history"
ON_MONDAY = "2026-11-16T14:30-0300"
AN_HOUR = {"SYNC_INTERVAL_MINUTES": "60"}
FROM_TUESDAY = {"PARTITIONS_START": "2026-11-17"}
CENTS = Fault(
    ticker=VICTIM,
    fields={"regularMarketPrice": 9_000},
    without=["regularMarketPreviousClose"],
)

pytestmark = pytest.mark.usefixtures("four_instruments")


def test_a_later_first_day_takes_no_reference_from_the_guard(
    pipeline: Pipeline, set_clock: SetClock, change_settings: ChangeSettings
) -> None:
    set_clock(TUESDAY_15_00 - DAY)
    assert pipeline.run(ON_MONDAY).success
    set_clock(TUESDAY_15_00)
    change_settings(**FROM_TUESDAY)
    pipeline.sandbox.faults = [CENTS]

    assert pipeline.run(LIVE_ON_TUESDAY).success

    assert row(pipeline, LIVE_ON_TUESDAY).decision == "withheld"
    assert row(pipeline, LIVE_ON_TUESDAY).reference_price == row(pipeline, ON_MONDAY).price
    assert 9_000 not in prices(pipeline)


def test_a_price_of_a_shorter_window_is_kept_but_is_not_one_of_the_longer(
    pipeline: Pipeline, set_clock: SetClock, change_settings: ChangeSettings
) -> None:
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)
    assert pipeline.run(SECOND).success
    set_clock(TUESDAY_15_00 + 2 * HALF_AN_HOUR)
    change_settings(**AN_HOUR)
    pipeline.sandbox.faults = [Fault(ticker=VICTIM, status=404)]

    result = pipeline.run(SECOND)

    assert result.success
    assert row(pipeline, SECOND).window_end == datetime(2026, 11, 17, 18, 30, tzinfo=UTC)
    assert len(prices(pipeline)) == 1
    assert len(pipeline.events()) == 4 + 3
    assert metadata(result, "quotes")["quotes"] == 3
    assert checks(result)["every_quote_delivered"][0]
    assert checks(result)["history_equals_quotes"][0]


def test_a_renamed_instrument_keeps_what_was_accepted_when_the_watchlist_follows(
    pipeline: Pipeline, set_clock: SetClock, watchlist: SetWatchlist
) -> None:
    watchlist([*INSTRUMENTS, "ELET3"])
    assert pipeline.run(LIVE_ON_TUESDAY).success
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)
    move = row(pipeline, LIVE_ON_TUESDAY, "AXIA3").price / 10
    pipeline.sandbox.faults = [
        Fault(ticker=ticker, fields={"regularMarketPrice": move}) for ticker in ("ELET3", "AXIA3")
    ]
    assert pipeline.run(SECOND).success
    assert accept(pipeline, SECOND, "AXIA3").success
    sent = prices(pipeline, "AXIA3")

    watchlist([*INSTRUMENTS, "AXIA3"])
    set_clock(TUESDAY_15_00 + 1.5 * HALF_AN_HOUR)
    assert pipeline.run(SECOND).success

    assert row(pipeline, SECOND, "AXIA3").decision == "accepted"
    assert len(prices(pipeline, "AXIA3")) == len(sent) + 1


def real(pipeline: Pipeline, key: str, *but: str) -> None:
    """As if Brapi had answered a moment later, for all tickers but these."""
    rows = pipeline.store.load([key])
    moment = timedelta(seconds=10)
    answered = [
        replace(quote, origin="brapi.dev", observed_at=quote.observed_at + moment)
        for quote in rows
        if quote.ticker not in but
    ]
    pipeline.store.save(answered, [key])


def test_one_made_up_price_that_is_left_stops_no_real_one(pipeline: Pipeline) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    real(pipeline, LIVE_ON_TUESDAY, VICTIM)
    pipeline.publish_made_up_prices = False

    result = pipeline.run(LIVE_ON_TUESDAY, select=SINKS)

    assert result.success
    assert len(pipeline.events()) == len(pipeline.documents()) == 3
    assert prices(pipeline) == []
    assert "Left out, as a sandbox made them up: 1 of 4 prices, of VALE3." in logs(pipeline, result)


def test_made_up_windows_of_a_range_stop_no_live_one(
    pipeline: Pipeline, set_clock: SetClock
) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)
    assert pipeline.run(SECOND, select="quotes").success
    real(pipeline, SECOND)
    pipeline.publish_made_up_prices = False

    result = pipeline.run(LIVE_ON_TUESDAY, SECOND, select=SINKS)

    assert result.success
    assert len(pipeline.events()) == len(pipeline.documents()) == 4
    held = metadata(result, "mongo_price_history", LIVE_ON_TUESDAY)["holds"]
    assert held == "EMPTY: `quotes` has no price for it"
    refused = pipeline.run(LIVE_ON_TUESDAY, select=SINKS)
    assert "are made up by a sandbox" in failure_of(refused, "mongo_price_history")


def test_an_accepted_price_of_the_sandbox_says_nothing_of_a_real_one(pipeline: Pipeline) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    made_up = replace(row(pipeline, LIVE_ON_TUESDAY), decision="accepted")
    moment = timedelta(seconds=10)
    real = replace(
        made_up, origin="brapi.dev", decision="clear", observed_at=made_up.observed_at + moment
    )
    before = replace(real, price=real.price * 100, window_start=real.window_start - HALF_AN_HOUR)

    (decided,) = decide([made_up], [real], {VICTIM: before})

    assert decided.decision == "withheld"


def test_a_made_up_price_of_the_sandbox_hides_no_real_one_from_the_guard(
    pipeline: Pipeline,
) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    made_up = row(pipeline, LIVE_ON_TUESDAY)
    first, second = made_up.window_start, made_up.window_start + HALF_AN_HOUR
    before = replace(made_up, origin="brapi.dev", window_start=first - HALF_AN_HOUR)
    cents = replace(
        before, price=before.price * 100, window_start=second, previous_close=None, source="daily"
    )

    [*_, decided] = decide([made_up], [cents], {VICTIM: before})

    assert (decided.decision, decided.reference_price) == ("withheld", before.price)


def test_the_coverage_is_that_of_the_watchlist(pipeline: Pipeline, watchlist: SetWatchlist) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    watchlist(["PETR4", "BBAS3"])

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert metadata(result, "quotes")["quotes"] == 4
    assert metadata(result, "quotes")["coverage_percent"] == 100


def test_the_previous_close_is_that_of_the_session_before(
    make_pipeline: Callable[..., Any],
    set_clock: SetClock,
    change_settings: ChangeSettings,
) -> None:
    with make_pipeline(plan="pro") as pipeline:
        assert pipeline.run("2026-11-16T10:00-0300", "2026-11-16T17:30-0300").success
        close = row(pipeline, "2026-11-16T17:30-0300", "BBAS3").price
        change_settings(**FROM_TUESDAY)
        first, last = "2026-11-17T10:00-0300", "2026-11-17T11:00-0300"

        result = pipeline.run(first, last)

        (day,) = (
            each["day"]
            for each in metadata(result, "quotes", first)["prices"]
            if each["ticker"] == "BBAS3"
        )
        assert day == f"{(row(pipeline, first, 'BBAS3').price / close - 1) * 100:+.2f}%"


def test_a_renamed_instrument_is_one_when_the_watchlist_follows(
    pipeline: Pipeline, set_clock: SetClock, watchlist: SetWatchlist
) -> None:
    watchlist(["PETR4", "ELET3"])
    pipeline.sandbox.faults = [Fault(ticker="ELET3", fields={"symbol": "ELET3"})]
    assert pipeline.run(LIVE_ON_TUESDAY).success
    pipeline.sandbox.faults = []
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)
    assert pipeline.run(SECOND).success
    set_clock(TUESDAY_15_00 + 2 * HALF_AN_HOUR)
    watchlist(["PETR4", "AXIA3"])
    assert pipeline.run(THIRD).success

    told = metadata(reported(pipeline), "report")

    assert sorted(each["ticker"] for each in told["prices"]) == ["AXIA3", "PETR4"]
    assert told["advancers"] + told["decliners"] == 2


def reported(pipeline: Pipeline) -> dg.ExecuteInProcessResult:
    store = pipeline.definitions().resources or {}
    job = dg.Definitions(jobs=[session_report], resources={"quote_store": store["quote_store"]})
    return job.resolve_job_def("session_report").execute_in_process(instance=pipeline.instance)
