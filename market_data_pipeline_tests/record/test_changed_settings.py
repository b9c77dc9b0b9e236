"""Sequences in which the settings change between the runs: what is stored keeps its meaning."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.market.price_guard import decide
from market_data_pipeline.report.session_report import session_report
from market_data_pipeline_tests.conftest import (
    INSTRUMENTS,
    LIVE_ON_TUESDAY,
    TUESDAY_15_00,
    ChangeSettings,
    Pipeline,
    SetClock,
    SetWatchlist,
    at,
)
from market_data_pipeline_tests.observed import checks, failure_of, logs, metadata
from market_data_pipeline_tests.record.helpers import (
    HALF_AN_HOUR,
    SECOND,
    THIRD,
    VICTIM,
    accept,
    launch_accept_moves,
    prices,
    row,
    times,
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


@pytest.mark.parametrize("change", [AN_HOUR, FROM_TUESDAY])
def test_a_price_is_accepted_in_a_window_that_there_is_no_longer(
    pipeline: Pipeline,
    set_clock: SetClock,
    change_settings: ChangeSettings,
    change: dict[str, str],
) -> None:
    set_clock(TUESDAY_15_00 - DAY)
    assert pipeline.run(ON_MONDAY).success
    set_clock(TUESDAY_15_00 - DAY + 2 * HALF_AN_HOUR)
    pipeline.sandbox.faults = [CENTS]
    half_past = "2026-11-16T15:30-0300"
    assert pipeline.run(half_past).success
    change_settings(**change)
    before = len(pipeline.events())

    result = launch_accept_moves(pipeline, VICTIM)

    assert result.success
    assert row(pipeline, half_past).decision == "accepted"
    assert len(pipeline.documents({"ticker": VICTIM, "decision": "accepted"})) == 1
    assert len(pipeline.events()) == before
    set_clock(TUESDAY_15_00)
    today = "2026-11-17T14:00-0300" if change == AN_HOUR else LIVE_ON_TUESDAY
    assert pipeline.run(today).success
    assert row(pipeline, today).reference_price == 9_000


def test_a_bar_of_a_longer_window_replaces_the_live_price_of_a_shorter_one(
    make_pipeline: Callable[..., Any], set_clock: SetClock, change_settings: ChangeSettings
) -> None:
    with make_pipeline(plan="pro") as pipeline:
        set_clock(TUESDAY_15_00 + HALF_AN_HOUR)
        assert pipeline.run(SECOND).success
        created = {each["_id"]: each["created_at"] for each in pipeline.documents()}
        set_clock(TUESDAY_15_00 + 5 * HALF_AN_HOUR)
        change_settings(**AN_HOUR)

        result = pipeline.run(SECOND)

        assert result.success
        rows = pipeline.store.load([SECOND])
        assert {quote.window_end for quote in rows} == {datetime(2026, 11, 17, 19, tzinfo=UTC)}
        assert {quote.source for quote in rows} == {"intraday"}
        assert checks(result)["history_equals_quotes"][0]
        assert {each["_id"]: each["created_at"] for each in pipeline.documents()} == created


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


def test_what_another_topic_has_is_not_on_this_one(pipeline: Pipeline, set_clock: SetClock) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    pipeline.topic += "-v2"
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)

    result = pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication")

    passed, why = checks(result)["every_quote_delivered"]
    assert not passed
    assert why.startswith(f"{LIVE_ON_TUESDAY} was never sent")


def test_a_newer_price_that_was_never_sent_is_missing(
    pipeline: Pipeline, set_clock: SetClock
) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR / 2)
    pipeline.sandbox.faults = [times(pipeline, 1.1)]
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)

    result = pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication")

    passed, why = checks(result)["every_quote_delivered"]
    assert not passed
    assert "missing on the topic: BBAS3, HGLG11, PETR4, VALE3" in why


def test_the_coverage_is_that_of_the_watchlist(pipeline: Pipeline, watchlist: SetWatchlist) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    watchlist(["PETR4", "BBAS3"])

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert metadata(result, "quotes")["quotes"] == 4
    assert metadata(result, "quotes")["coverage_percent"] == 100


def at_16_00(pipeline: Pipeline, set_clock: SetClock, change: ChangeSettings) -> str:
    """The window from 15:00 to 16:00, after windows of a quarter of an hour until 15:45."""
    change(SYNC_INTERVAL_MINUTES="15")
    set_clock(at("2026-11-17T15:46"))
    assert pipeline.run("2026-11-17T15:30-0300").success
    return "2026-11-17T15:00-0300"


def test_a_shorter_window_that_ended_before_a_longer_one_is_its_reference(
    pipeline: Pipeline, set_clock: SetClock, change_settings: ChangeSettings
) -> None:
    key = at_16_00(pipeline, set_clock, change_settings)
    change_settings(**AN_HOUR)
    set_clock(at("2026-11-17T16:00:05"))
    pipeline.sandbox.faults = [CENTS]

    assert pipeline.run(key).success

    assert row(pipeline, key).decision == "withheld"
    assert 9_000 not in prices(pipeline)


def test_a_price_accepted_in_a_shorter_window_is_the_reference_of_a_longer_one(
    pipeline: Pipeline, set_clock: SetClock, change_settings: ChangeSettings
) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    pipeline.sandbox.faults = [times(pipeline, 0.1)]
    key = at_16_00(pipeline, set_clock, change_settings)
    assert launch_accept_moves(pipeline, VICTIM).success
    change_settings(**AN_HOUR)
    set_clock(at("2026-11-17T16:00:05"))

    assert pipeline.run(key).success

    assert row(pipeline, key).decision == "clear"


def test_the_job_accepts_in_the_window_that_ended_last(
    pipeline: Pipeline, set_clock: SetClock, change_settings: ChangeSettings
) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    key = at_16_00(pipeline, set_clock, change_settings)
    change_settings(**AN_HOUR)
    set_clock(at("2026-11-17T16:00:05"))
    pipeline.sandbox.faults = [times(pipeline, 0.1)]
    assert pipeline.run(key).success

    assert launch_accept_moves(pipeline, VICTIM).success

    assert row(pipeline, key).decision == "accepted"
    assert row(pipeline, key).price in prices(pipeline)


def test_the_job_knows_an_instrument_by_its_old_symbol(
    pipeline: Pipeline, set_clock: SetClock, watchlist: SetWatchlist
) -> None:
    watchlist(["PETR4", "ELET3"])
    assert pipeline.run(LIVE_ON_TUESDAY).success
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)
    move = row(pipeline, LIVE_ON_TUESDAY, "AXIA3").price / 10
    pipeline.sandbox.faults = [Fault(ticker="ELET3", fields={"regularMarketPrice": move})]
    assert pipeline.run(SECOND).success

    assert launch_accept_moves(pipeline, "ELET3").success

    assert move in prices(pipeline, "AXIA3")


def test_the_job_sees_past_a_made_up_price(pipeline: Pipeline, set_clock: SetClock) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    real(pipeline, LIVE_ON_TUESDAY)
    withheld = replace(row(pipeline, LIVE_ON_TUESDAY), decision="withheld")
    moment = timedelta(seconds=1)
    again = replace(withheld, observed_at=withheld.observed_at + moment)
    pipeline.store.save([again], [LIVE_ON_TUESDAY])
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)
    assert pipeline.run(SECOND, select="quotes").success
    real(pipeline, SECOND, VICTIM)
    pipeline.publish_made_up_prices = False

    assert launch_accept_moves(pipeline, VICTIM).success

    assert row(pipeline, LIVE_ON_TUESDAY).decision == "accepted"


@pytest.mark.parametrize("change", [AN_HOUR, FROM_TUESDAY])
def test_the_previous_close_is_that_of_the_session_before(
    make_pipeline: Callable[..., Any],
    set_clock: SetClock,
    change_settings: ChangeSettings,
    change: dict[str, str],
) -> None:
    with make_pipeline(plan="pro") as pipeline:
        assert pipeline.run("2026-11-16T10:00-0300", "2026-11-16T17:30-0300").success
        close = row(pipeline, "2026-11-16T17:30-0300", "BBAS3").price
        change_settings(**change)
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
