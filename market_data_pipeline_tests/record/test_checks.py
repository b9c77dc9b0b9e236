"""Each check, made to fail for real, and what an engineer reads then."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline_tests.conftest import (
    LIVE_ON_TUESDAY,
    TUESDAY_15_00,
    Pipeline,
    SetClock,
    at,
)
from market_data_pipeline_tests.observed import checks, logs, metadata
from market_data_pipeline_tests.record.helpers import (
    FOURTH,
    SECOND,
    THIRD,
    VICTIM,
    Later,
    accept,
    prices,
    row,
    times,
)

pytestmark = pytest.mark.usefixtures("four_instruments")


def test_no_price_waits_for_the_checks_of_what_is_stored(pipeline: Pipeline) -> None:
    with pipeline.without_kafka():
        result = pipeline.run(LIVE_ON_TUESDAY)

    begun = [event.step_key for event in result.all_events if event.is_step_start]
    assert begun == ["quotes", "kafka_publication", "mongo_price_history", "check_record"]
    assert checks(result)["prices_plausible"] == (True, "All 4 prices are plausible.")


def test_the_checks_of_what_is_stored_can_be_executed_without_the_assets(
    pipeline: Pipeline, set_clock: SetClock
) -> None:
    from market_data_pipeline.quotes.checks import check_record

    job = dg.define_asset_job("alone", dg.AssetSelection.checks(check_record))
    definitions = dg.Definitions.merge(pipeline.definitions(), dg.Definitions(jobs=[job]))
    alone = definitions.resolve_job_def("alone")
    set_clock(datetime(2026, 1, 2, 13, 10, tzinfo=UTC))  # before the first window ends
    verdicts = checks(alone.execute_in_process(instance=pipeline.instance))
    assert verdicts["prices_plausible"] == (True, "All 0 prices are plausible.")

    set_clock(TUESDAY_15_00)
    assert pipeline.run(LIVE_ON_TUESDAY).success
    verdicts = checks(alone.execute_in_process(instance=pipeline.instance))
    assert verdicts["quotes_recent"] == (True, "All 4 live quotes are recent.")


def test_a_wrong_price_is_stored_and_withheld_and_no_measure_until_it_is_accepted(
    stored: Pipeline, later: Later
) -> None:
    stored.sandbox.faults = [times(stored, 100)]
    result = stored.run(SECOND)

    passed, why = checks(result)["prices_plausible"]
    assert not passed
    assert why.startswith("1 of 4 made-up prices have moved too far: VALE3 ")
    assert checks(result)["every_quote_delivered"] == (
        True,
        "The broker acknowledged all 3 events. Withheld, as their prices have moved too far: "
        "VALE3.",
    )
    assert metadata(result, "kafka_publication")["withheld"] == 1
    assert len(prices(stored)) == 1
    assert len(prices(stored, "PETR4")) == len(stored.documents({"ticker": VICTIM})) == 2

    later(2)
    assert not checks(stored.run(THIRD))["prices_plausible"][0]
    asked = len(stored.sandbox.requests)
    result = accept(stored, THIRD, VICTIM)
    assert "Accepted VALE3: published now." in logs(stored, result)
    assert len(stored.sandbox.requests) == asked
    assert all(passed for passed, _ in checks(result).values())
    assert checks(result)["every_quote_delivered"][1] == "The broker acknowledged all 4 events."
    (document,) = stored.documents({"ticker": VICTIM, "decision": "accepted"})
    assert document["price"] == row(stored, THIRD).price == prices(stored)[1]

    later(3)
    assert checks(stored.run(FOURTH))["prices_plausible"][0]
    assert len(prices(stored)) == 3


@pytest.mark.parametrize(
    ("fields", "check", "sentence"),
    [
        (
            {"regularMarketTime": "2026-11-17T15:00:00.000Z"},
            "quotes_recent",
            "1 of 4 live quotes are older than they should be: VALE3. The instruments are not "
            "traded, or Brapi is late: see its status page.",
        ),
        (
            {"regularMarketPrice": 9_000, "regularMarketPreviousClose": 50},
            "prices_plausible",
            "1 of 4 made-up prices have moved too far: VALE3 9000.00 after 50.00, the previous "
            "close. They are stored, but withheld from the topic. If a move is real, materialize "
            'the window with the config {"ops": {"quotes": {"config": {"accept": ["VALE3"]}}}}',
        ),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(
    pipeline: Pipeline, fields: dict[str, Any], check: str, sentence: str
) -> None:
    pipeline.sandbox.faults = [Fault(ticker=VICTIM, fields=fields)]

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert result.success
    verdicts = checks(result)
    assert [name for name, (passed, _) in verdicts.items() if not passed] == [check]
    assert verdicts[check][1] == sentence


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"currency": "USD"}, "priced in 'USD', not in BRL"),
        ({"longName": "x" * 100_000}, "unusable name of more than 500 characters"),
        ({"regularMarketTime": "2026-11-17T18:02:00.000Z"}, "unusable market time"),
        (
            {"regularMarketTime": "2026-11-16T20:00:00.000Z"},
            "no price of this session: the last one is of 2026-11-16 17:00",
        ),
        (
            {"regularMarketTime": "2026-11-17T12:44:59.000Z"},
            "no price of this session: the last one is of 2026-11-17 09:44",
        ),
    ],
)
def test_what_cannot_be_used_of_an_answer_costs_its_ticker_alone(
    pipeline: Pipeline, fields: dict[str, Any], reason: str
) -> None:
    pipeline.sandbox.faults = [Fault(ticker=VICTIM, fields=fields)]

    result = pipeline.run(LIVE_ON_TUESDAY)

    [failed] = metadata(result, "quotes")["failed"]
    assert failed["ticker"] == VICTIM
    assert reason in failed["reason"]
    assert f"VALE3 failed: {failed['reason']}" in logs(pipeline, result)
    assert "Ingestion completed: 3 succeeded, 1 failed" in logs(pipeline, result)
    assert checks(result)["all_tickers_quoted"] == (False, "1 tickers failed: VALE3.")
    assert len(pipeline.events()) == len(pipeline.documents()) == 3


def test_of_two_instruments_that_became_one_a_price_is_kept(pipeline: Pipeline) -> None:
    pipeline.sandbox.faults = [
        Fault(ticker=ticker, fields={"symbol": "VALX3"}) for ticker in ("BBAS3", VICTIM)
    ]

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert [quote for quote in pipeline.documents() if quote["ticker"] == "VALX3"]
    (failed,) = metadata(result, "quotes")["failed"]
    assert failed["reason"] == (
        "answered under the symbol VALX3, like VALE3, whose answer counts: remove one of the two "
        "from the watchlist"
    )


def test_no_answer_takes_the_place_of_another_ticker_of_the_watchlist(pipeline: Pipeline) -> None:
    """Its own request fails, and another one is answered in its name."""
    pipeline.sandbox.faults = [
        Fault(ticker=VICTIM, status=404),
        Fault(ticker="BBAS3", fields={"symbol": VICTIM}),
    ]

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert [quote["ticker"] for quote in pipeline.documents()] == ["HGLG11", "PETR4"]
    failed = {each["ticker"]: each["reason"] for each in metadata(result, "quotes")["failed"]}
    assert failed == {
        VICTIM: "unknown ticker (404)",
        "BBAS3": "answered under the symbol VALE3, like VALE3, whose answer counts: remove one of "
        "the two from the watchlist",
    }


# Shortly before the close, which is at 18:00 from November on.
THURSDAYS_CLOSE = Fault(fields={"regularMarketTime": "2026-11-19T20:54:00.000Z"})
AN_HOUR_BEFORE = Fault(fields={"regularMarketTime": "2026-11-19T19:54:00.000Z"})
ON_SUNDAY = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "plan", "window", "faults", "minutes", "in_time", "recent"),
    [
        (at("2026-11-17T15:29"), "pro", LIVE_ON_TUESDAY, [], 29, False, True),
        (at("2026-11-17T15:29"), "free", LIVE_ON_TUESDAY, [], 29, True, True),
        (ON_SUNDAY, "free", "2026-11-19T17:30-0300", [THURSDAYS_CLOSE], 66 * 60, True, True),
        (ON_SUNDAY, "free", "2026-11-19T17:30-0300", [AN_HOUR_BEFORE], 66 * 60, True, False),
    ],
)
def test_a_price_that_was_observed_late_says_so_unless_the_market_was_closed(
    make_pipeline: Callable[..., Any],
    now: datetime,
    plan: str,
    window: str,
    faults: list[Fault],
    minutes: float,
    in_time: bool,
    recent: bool,
) -> None:
    with make_pipeline(now, plan=plan) as pipeline:
        pipeline.sandbox.faults = faults

        result = pipeline.run(window)

        assert metadata(result, "quotes")["observed_minutes_after_end"] == minutes
        assert checks(result)["observed_in_time"][0] is in_time
        assert checks(result)["quotes_recent"][0] is recent
