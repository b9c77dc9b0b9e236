"""Sequences in which the settings change between the runs: what is stored keeps its meaning."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import requests
from brapi_sandbox.faults import Fault

from market_data_pipeline.market.price_guard import decide
from market_data_pipeline.market.quote import SANDBOX, origin_of
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
from market_data_pipeline_tests.publication.helpers import quote
from market_data_pipeline_tests.record.helpers import (
    HALF_AN_HOUR,
    SECOND,
    THIRD,
    VICTIM,
    accept,
    prices,
    report,
    row,
)

SINKS = "key:kafka_publication or key:mongo_price_history"

pytestmark = pytest.mark.usefixtures("four_instruments")


def test_a_price_of_a_shorter_window_is_kept_but_is_not_one_of_the_longer(
    pipeline: Pipeline, set_clock: SetClock, change_settings: ChangeSettings
) -> None:
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)
    assert pipeline.run(SECOND).success
    set_clock(TUESDAY_15_00 + 2 * HALF_AN_HOUR)
    change_settings(SYNC_INTERVAL_MINUTES="60")
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


def test_made_up_prices_stop_no_real_one(pipeline: Pipeline, set_clock: SetClock) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)
    assert pipeline.run(SECOND, select="quotes").success
    # As if Brapi had answered a moment later in the second window, for all but one.
    moment = timedelta(seconds=10)
    real = [
        replace(quote, origin="brapi.dev", observed_at=quote.observed_at + moment)
        for quote in pipeline.store.load([SECOND])
        if quote.ticker != VICTIM
    ]
    pipeline.store.save(real, [SECOND])
    pipeline.publish_made_up_prices = False

    result = pipeline.run(LIVE_ON_TUESDAY, SECOND, select=SINKS)

    assert result.success
    assert len(pipeline.events()) == len(pipeline.documents()) == 3
    assert prices(pipeline) == []
    held = metadata(result, "mongo_price_history", LIVE_ON_TUESDAY)["contents"]
    assert held == "EMPTY: `quotes` has no price for it"
    result = pipeline.run(SECOND, select=SINKS)
    assert "Left out, because a sandbox made them up: 1 of 4 prices, of VALE3." in logs(
        pipeline, result
    )
    refused = pipeline.run(LIVE_ON_TUESDAY, select=SINKS)
    assert "are made up by a sandbox" in failure_of(refused, "mongo_price_history")


def test_a_sandbox_is_one_behind_a_proxy_too(pipeline: Pipeline) -> None:
    headers = requests.get(pipeline.sandbox.url, timeout=5).headers
    headers["Server"] = "nginx"

    assert origin_of("prices.example", headers) == SANDBOX


def test_made_up_prices_say_nothing_of_a_real_one() -> None:
    before = quote("2026-11-17T14:00-0300", origin="brapi.dev")
    made_up = quote(LIVE_ON_TUESDAY, price=before.price * 100, origin=SANDBOX)
    accepted = replace(quote(SECOND, price=made_up.price, origin=SANDBOX), decision="accepted")
    moment = timedelta(seconds=10)
    real = replace(accepted, origin="brapi.dev", observed_at=accepted.observed_at + moment)

    (_, decided), _ = decide([made_up, accepted], [real], {before.ticker: before})

    assert (decided.decision, decided.reference_price) == ("withheld", before.price)


def test_the_coverage_is_that_of_the_watchlist(pipeline: Pipeline, watchlist: SetWatchlist) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    watchlist(["PETR4", "BBAS3"])

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert metadata(result, "quotes")["quotes"] == 4
    assert metadata(result, "quotes")["coverage_percent"] == 100


def test_a_renamed_instrument_is_one_in_the_report_when_the_watchlist_follows(
    pipeline: Pipeline, set_clock: SetClock, watchlist: SetWatchlist
) -> None:
    itself = [Fault(ticker="ELET3", fields={"symbol": "ELET3"})]
    for number, (ticker, key, faults) in enumerate(
        [("ELET3", LIVE_ON_TUESDAY, itself), ("ELET3", SECOND, []), ("AXIA3", THIRD, [])]
    ):
        set_clock(TUESDAY_15_00 + number * HALF_AN_HOUR)
        watchlist(["PETR4", ticker])
        pipeline.sandbox.faults = faults
        assert pipeline.run(key).success

    told = metadata(report(pipeline, "2026-11-17"), "session_report")

    assert sorted(each["ticker"] for each in told["prices"]) == ["AXIA3", "PETR4"]
    assert told["advancers"] + told["decliners"] == 2
