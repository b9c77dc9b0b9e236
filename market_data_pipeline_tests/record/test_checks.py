"""Each check, made to fail for real, and what an engineer reads then."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pymongo
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline, SetClock
from market_data_pipeline_tests.observed import checks, metadata

NEXT = "2026-11-17T15:00-0300"
AFTER_NEXT = "2026-11-17T15:30-0300"
LAST = "2026-11-17T16:00-0300"
FIRST_START = datetime(2026, 11, 17, 17, 30, tzinfo=UTC)
HALF_AN_HOUR = timedelta(minutes=30)


def a_hundred_times(pipeline: Pipeline, ticker: str) -> Fault:
    """The sandbox sends the instrument's price in cents."""
    (stored,) = pipeline.documents({"ticker": ticker, "window_start": {"$gte": FIRST_START}})
    return Fault(ticker=ticker, fields={"regularMarketPrice": stored["price"] * 100})


@pytest.fixture
def after_a_window(pipeline: Pipeline, set_clock: SetClock) -> Pipeline:
    """The pipeline half an hour after a window that is stored and published."""
    assert pipeline.run(LIVE_ON_TUESDAY).success
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)
    return pipeline


def published(pipeline: Pipeline, ticker: str) -> int:
    return sum(seen.event.key == ticker.encode() for seen in pipeline.events())


def said(pipeline: Pipeline, key: str, **run: Any) -> dict[str, tuple[bool, str]]:
    result = pipeline.run(key, **run)
    assert result.success
    return checks(result)


def test_all_is_well(after_a_window: Pipeline) -> None:
    verdicts = said(after_a_window, NEXT)

    assert [name for name, (passed, _) in verdicts.items() if not passed] == []
    assert set(verdicts) == {
        "all_tickers_quoted",
        "watchlist_free_of_renames",
        "prices_plausible",
        "quotes_recent",
        "observed_in_time",
        "files_readable",
        "quota_lasts",
        "history_equals_quotes",
        "every_quote_delivered",
    }


def test_no_price_waits_for_the_checks_of_what_is_stored(pipeline: Pipeline) -> None:
    with pipeline.without_kafka():
        result = pipeline.run(LIVE_ON_TUESDAY)

    begun = [event.step_key for event in result.all_events if event.is_step_start]
    assert begun == ["quotes", "kafka_publication", "mongo_price_history", "check_record"]
    assert checks(result)["prices_plausible"] == (True, "All 50 prices are plausible.")


def alone(pipeline: Pipeline) -> dict[str, tuple[bool, str]]:
    """What the checks of what is stored say if they are executed without the assets."""
    from market_data_pipeline.quotes.checks import check_record

    job = dg.define_asset_job("alone", dg.AssetSelection.checks(check_record))
    definitions = dg.Definitions.merge(pipeline.definitions(), dg.Definitions(jobs=[job]))
    run = definitions.resolve_job_def("alone").execute_in_process(instance=pipeline.instance)
    return checks(run)


def test_the_checks_of_what_is_stored_can_be_executed_alone(after_a_window: Pipeline) -> None:
    after_a_window.run(NEXT)

    assert alone(after_a_window)["quotes_recent"] == (True, "All 50 live quotes are recent.")


def test_they_have_nothing_to_say_before_the_first_window_ends(
    pipeline: Pipeline, set_clock: SetClock
) -> None:
    set_clock(datetime(2026, 1, 2, 13, 10, tzinfo=UTC))

    assert alone(pipeline)["prices_plausible"] == (True, "All 0 prices are plausible.")


def test_a_wrong_price_is_stored_and_withheld_and_no_measure_until_it_is_accepted(
    after_a_window: Pipeline, set_clock: SetClock
) -> None:
    wrong = a_hundred_times(after_a_window, "VALE3")
    after_a_window.sandbox.faults = [wrong]
    result = after_a_window.run(NEXT)

    verdicts = checks(result)
    passed, why = verdicts["prices_plausible"]
    assert not passed
    assert why.startswith("1 of 50 prices have moved too far: VALE3 ")
    assert verdicts["every_quote_delivered"] == (
        True,
        "The broker acknowledged all 49 events. Withheld, as their prices have moved too far: "
        "VALE3.",
    )
    assert published(after_a_window, "VALE3") == 1
    assert published(after_a_window, "PETR4") == 2
    assert metadata(result, "kafka_publication")["withheld"] == 1
    assert len(after_a_window.documents({"ticker": "VALE3"})) == 2

    set_clock(TUESDAY_15_00 + 2 * HALF_AN_HOUR)
    assert not said(after_a_window, AFTER_NEXT)["prices_plausible"][0]
    after_a_window.sandbox.faults = []
    set_clock(TUESDAY_15_00 + 2.1 * HALF_AN_HOUR)
    assert said(after_a_window, AFTER_NEXT)["prices_plausible"][0]
    assert published(after_a_window, "VALE3") == 2

    after_a_window.sandbox.faults = [wrong]
    set_clock(TUESDAY_15_00 + 2.2 * HALF_AN_HOUR)
    assert not said(after_a_window, AFTER_NEXT)["prices_plausible"][0]
    verdicts = said(after_a_window, AFTER_NEXT, config={"quotes": {"accept": ["VALE3"]}})
    assert verdicts["prices_plausible"][0]
    assert verdicts["every_quote_delivered"] == (True, "The broker acknowledged all 50 events.")
    set_clock(TUESDAY_15_00 + 3 * HALF_AN_HOUR)
    assert said(after_a_window, LAST)["prices_plausible"][0]
    assert published(after_a_window, "VALE3") == 4


@pytest.mark.parametrize("earlier", [None, "2026-11-16T17:30-0300"])
def test_the_first_window_is_compared_with_the_previous_close_or_what_is_stored_of_it(
    pipeline: Pipeline, earlier: str | None
) -> None:
    if earlier:
        pipeline.run(earlier)
    pipeline.sandbox.faults = [
        Fault(ticker="VALE3", fields={"regularMarketPrice": 9_000}),
        Fault(ticker="PETR4", without=["regularMarketPreviousClose"]),
    ]

    passed, why = said(pipeline, LIVE_ON_TUESDAY)["prices_plausible"]

    assert not passed
    assert "VALE3 9000.00 after" in why
    assert earlier or ", the previous close." in why
    assert published(pipeline, "VALE3") == 0
    assert published(pipeline, "PETR4") == 1


@pytest.mark.parametrize(
    ("fault", "check", "sentence"),
    [
        (
            Fault(ticker="VALE3", fields={"regularMarketTime": "2026-11-17T15:00:00.000Z"}),
            "quotes_recent",
            "1 of 50 live quotes are older than they should be: VALE3. The instruments are not "
            "traded, or Brapi is late: see its status page.",
        ),
        (
            Fault(ticker="VALE3", fields={"symbol": "VALX3"}),
            "watchlist_free_of_renames",
            "Answered under another symbol: VALE3 as VALX3. Stored and published under it; if B3 "
            "has renamed the instrument, put the new symbol into the watchlist.",
        ),
        (Fault(ticker="VALE3", status=404), "all_tickers_quoted", "1 tickers failed: VALE3."),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(
    pipeline: Pipeline, fault: Fault, check: str, sentence: str
) -> None:
    pipeline.sandbox.faults = [fault]

    verdicts = said(pipeline, LIVE_ON_TUESDAY)

    assert [name for name, (passed, _) in verdicts.items() if not passed] == [check]
    assert verdicts[check][1] == sentence


def test_of_two_instruments_that_became_one_a_price_is_kept(pipeline: Pipeline) -> None:
    pipeline.sandbox.faults = [
        Fault(ticker=ticker, fields={"symbol": "VALX3"}) for ticker in ("BBAS3", "VALE3")
    ]

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert [quote for quote in pipeline.documents() if quote["ticker"] == "VALX3"]
    (failed,) = metadata(result, "quotes")["failed"]
    assert failed["reason"] == (
        "answered under the symbol VALX3, as is VALE3, which is kept: leave one of them in the "
        "watchlist"
    )


def test_the_last_price_of_a_closed_market_is_recent(make_pipeline: Callable[..., Any]) -> None:
    """On a Sunday, for Thursday's last window."""
    with make_pipeline(now=datetime(2026, 11, 22, 15, 0, tzinfo=UTC)) as pipeline:
        thursdays_close = "2026-11-19T20:00:00.000Z"
        pipeline.sandbox.faults = [Fault(fields={"regularMarketTime": thursdays_close})]

        verdicts = said(pipeline, "2026-11-19T17:30-0300")

        assert verdicts["quotes_recent"][0]
        assert verdicts["observed_in_time"][0]


def test_a_document_that_somebody_else_observed_later_is_named(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    later = TUESDAY_15_00 + timedelta(minutes=1)
    with pymongo.MongoClient[dict[str, Any]](pipeline.mongo_uri) as client:
        collection = client["market_data_db"]["price_history"]
        key = {"_id": "VALE3|2026-11-17T17:30:00Z"}
        there = collection.find_one(key) or {}
        higher = f"9{there.pop('rank')}"
        collection.replace_one(key, {**there, "price": 1.0, "observed_at": later, "rank": higher})

    verdicts = said(pipeline, LIVE_ON_TUESDAY, select="mongo_price_history")

    passed, why = verdicts["history_equals_quotes"]
    assert not passed
    assert "1 of 50 quotes are not in the collection as they are stored: VALE3." in why
