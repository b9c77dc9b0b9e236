"""What is known of a price survives every sequence of runs, and the guard never leaks."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault
from market_data_pipeline.runs.one_at_a_time import KAFKA

from market_data_pipeline.publication.publications import sent
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline.runs.dagster_internals import claim, release
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline, SetClock
from market_data_pipeline_tests.observed import checks, failure_of, logs, metadata
from market_data_pipeline_tests.record.helpers import (
    FOURTH,
    SECOND,
    THIRD,
    VICTIM,
    accept,
    launch_accept_moves,
    prices,
    row,
    times,
)
from market_data_pipeline_tests.supervised import wait_until

A_YEAR_AGO, DAY = date(2026, 1, 2), timedelta(days=1)

pytestmark = pytest.mark.usefixtures("four_instruments")


def test_wrong_then_no_answer_then_wrong_again(
    stored: Pipeline, later: Callable[[float], None]
) -> None:
    right = prices(stored)
    wrong = times(stored, 100)
    for number, fault in enumerate([wrong, Fault(ticker=VICTIM, status=404), wrong], 1):
        later(number)
        stored.sandbox.faults = [fault]
        assert stored.run((SECOND, THIRD, FOURTH)[number - 1]).success

    assert prices(stored) == right
    assert row(stored, FOURTH).decision == "withheld"
    assert row(stored, FOURTH).reference_price == right[0]


def test_a_withheld_row_that_is_filled_in_later_stays_withheld(
    stored: Pipeline, later: Callable[[float], None]
) -> None:
    right = prices(stored)
    stored.sandbox.faults = [times(stored, 100)]
    stored.run(SECOND)
    later(2)
    stored.run(SECOND)  # the free plan has no bar for it
    assert row(stored, SECOND).decision == "withheld"
    stored.run(THIRD)
    assert prices(stored) == right

    later(3)
    stored.sandbox.faults = []
    stored.run(FOURTH)
    assert row(stored, FOURTH).decision == "clear"
    assert len(prices(stored)) == 2


def test_a_rerun_with_few_answers_keeps_the_others(
    stored: Pipeline, later: Callable[[float], None]
) -> None:
    first = stored.run(SECOND)
    assert first.success
    before = len(stored.events())
    later(1.5)
    stored.sandbox.faults = [
        Fault(ticker=ticker, status=404) for ticker in ("PETR4", "BBAS3", "HGLG11")
    ]

    result = stored.run(SECOND)

    assert result.success
    assert len(stored.store.load([SECOND])) == len(stored.documents()) / 2 == 4
    assert metadata(result, "quotes")["quotes"] == 4
    assert len(stored.events()) == before + 4
    assert "An earlier quote is kept for 3 of them." in checks(result)["all_tickers_quoted"][1]


@pytest.mark.parametrize("days", [2, 80])
def test_a_gap_is_no_escape(pipeline: Pipeline, set_clock: SetClock, days: int) -> None:
    set_clock(TUESDAY_15_00 - timedelta(days=days))
    first = {2: "2026-11-13T17:30-0300", 80: "2026-08-28T17:30-0300"}[days]
    pipeline.run(first)
    assert row(pipeline, first)
    set_clock(TUESDAY_15_00)
    pipeline.sandbox.faults = [
        Fault(
            ticker=VICTIM,
            fields={"regularMarketPrice": 9_000},
            without=["regularMarketPreviousClose"],
        )
    ]

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert not checks(result)["prices_plausible"][0]
    assert 9_000 not in prices(pipeline)
    assert row(pipeline, LIVE_ON_TUESDAY).reference_price == row(pipeline, first).price


def test_a_move_that_is_accepted_too_late_counts_from_the_next_window_on(
    stored: Pipeline, later: Callable[[float], None]
) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    stored.run(SECOND)
    later(2)

    result = accept(stored, SECOND, VICTIM)

    assert result.success
    assert "they take effect with the next window" in logs(stored, result)
    assert len(prices(stored)) == 1
    assert row(stored, SECOND).decision == "accepted"
    (document,) = stored.documents({"_id": f"{VICTIM}|2026-11-17T18:00:00Z"})
    assert document["decision"] == "accepted"
    stored.run(THIRD)
    assert len(prices(stored)) == 2


def test_two_moves_are_accepted_one_after_the_other(
    stored: Pipeline, later: Callable[[float], None]
) -> None:
    stored.sandbox.faults = [times(stored, 0.1), times(stored, 0.1, "BBAS3")]
    stored.run(SECOND)

    assert not checks(accept(stored, SECOND, VICTIM))["every_quote_delivered"][0]
    assert checks(accept(stored, SECOND, "BBAS3"))["every_quote_delivered"][0]

    later(2)
    stored.run(THIRD)
    assert row(stored, THIRD).decision == row(stored, THIRD, "BBAS3").decision == "clear"
    assert stored.run(SECOND, select="kafka_publication").success
    assert row(stored, SECOND).decision == row(stored, SECOND, "BBAS3").decision == "accepted"


def test_an_accepted_move_holds_when_the_window_is_observed_again(
    stored: Pipeline, later: Callable[[float], None]
) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    stored.run(SECOND)
    accept(stored, SECOND, VICTIM)
    for minutes in (10, 20):
        later(1 + minutes / 30)
        stored.sandbox.faults = [times(stored, 0.1 + minutes / 1000)]
        assert checks(stored.run(SECOND))["prices_plausible"][0]

    assert len(prices(stored)) == 4
    assert row(stored, SECOND).decision == "accepted"


@pytest.mark.parametrize("ticker", ["VALE", "PETR4"], ids=["a typo", "a plausible price"])
def test_a_ticker_that_is_not_withheld_cannot_be_accepted(stored: Pipeline, ticker: str) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    stored.run(SECOND)
    before = len(stored.events())

    result = accept(stored, SECOND, ticker)

    assert not result.success
    assert f"{ticker} cannot be accepted: withheld are VALE3." in logs(stored, result)
    assert len(stored.events()) == before


def test_nothing_but_the_ticker_is_needed(stored: Pipeline, later: Callable[[float], None]) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    stored.run(SECOND)
    job = stored.definitions().resolve_job_def("accept_moves")

    def launch(ticker: str) -> dg.ExecuteInProcessResult:
        config = {"ops": {"accept": {"config": {"tickers": [ticker]}}}}
        return job.execute_in_process(config, instance=stored.instance, raise_on_error=False)

    assert launch(VICTIM).success
    assert len(prices(stored)) == 2
    shown = stored.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("kafka_publication"), "every_quote_delivered"), limit=1
    )
    assert shown[0].evaluation is not None
    assert shown[0].evaluation.passed
    refused = launch("PETR4")
    assert not refused.success
    assert "PETR4 is not withheld" in logs(stored, refused)


def test_an_acceptance_that_was_not_published_can_be_launched_again(
    stored: Pipeline, later: Callable[[float], None]
) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    stored.run(SECOND)
    config = {"ops": {"accept": {"config": {"tickers": [VICTIM]}}}}

    def launch() -> dg.ExecuteInProcessResult:
        job = stored.definitions().resolve_job_def("accept_moves")
        return job.execute_in_process(config, instance=stored.instance, raise_on_error=False)

    with stored.without_kafka():
        assert not launch().success

    assert launch().success
    assert len(prices(stored)) == 2
    (document,) = stored.documents({"ticker": VICTIM, "decision": "accepted"})
    assert document["price"] == prices(stored)[1]


def test_an_acceptance_reaches_the_audit_although_kafka_is_down(
    stored: Pipeline, later: Callable[[float], None]
) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    stored.run(SECOND)

    with stored.without_kafka():
        result = accept(stored, SECOND, VICTIM)

    assert not result.success
    assert checks(result)["every_quote_delivered"][0] is False
    assert len(stored.documents({"ticker": VICTIM, "decision": "accepted"})) == 1
    # What `retry_live_window` launches knows nothing of the acceptance.
    assert stored.run(SECOND, select="kafka_publication").success
    assert len(prices(stored)) == 2


def test_quotes_that_came_after_the_publication_are_missing_from_it(
    pipeline: Pipeline, later: Callable[[float], None]
) -> None:
    pipeline.sandbox.faults = [Fault(ticker=VICTIM, status=404)]
    assert pipeline.run(LIVE_ON_TUESDAY).success
    others = ("PETR4", "BBAS3", "HGLG11")
    pipeline.sandbox.faults = [Fault(ticker=ticker, status=404) for ticker in others]
    later(0.1)
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    later(1)

    result = pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication")

    assert checks(result)["every_quote_delivered"] == (
        False,
        f"{LIVE_ON_TUESDAY} was sent before all of its quotes were stored; missing on the topic: "
        "VALE3 (it was live until 15:30).",
    )


def test_a_price_that_is_stored_while_a_run_waits_for_its_turn_is_the_one_it_sends(
    pipeline: Pipeline, instance: dg.DagsterInstance
) -> None:
    pipeline.instance = instance
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    older = row(pipeline, LIVE_ON_TUESDAY)
    job = pipeline.definitions().resolve_implicit_global_asset_job_def()
    other = instance.create_run_for_job(job).run_id
    assert claim(instance, KAFKA, other, "kafka_publication") is None

    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(pipeline.run, LIVE_ON_TUESDAY, select="kafka_publication")
        wait_until(lambda: said(instance, f"Waiting for run {other[:8]}"), "the run waits")
        newer = replace(
            older, price=older.price + 1, observed_at=older.observed_at + timedelta(seconds=1)
        )
        pipeline.store.save([newer], [LIVE_ON_TUESDAY])
        release(instance, other)
        assert waiting.result().success

    assert prices(pipeline) == [newer.price]


def said(instance: dg.DagsterInstance, text: str) -> bool:
    """Whether a run has logged it."""
    return any(
        text in entry.user_message
        for run in instance.get_runs()
        for entry in instance.all_logs(run.run_id)
    )


def test_a_window_that_was_never_sent_stays_red(
    pipeline: Pipeline, later: Callable[[float], None]
) -> None:
    with pipeline.without_kafka():
        assert not pipeline.run(LIVE_ON_TUESDAY).success
    later(1)

    result = pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication")

    passed, why = checks(result)["every_quote_delivered"]
    assert not passed
    assert why == f"{LIVE_ON_TUESDAY} was never sent (it was live until 15:30)."


def shown(pipeline: Pipeline, asset: str, check: str) -> tuple[bool, str]:
    """What the page of an asset shows of a check."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    records = pipeline.instance.event_log_storage.get_asset_check_summary_records([key])
    record = records[key].last_check_execution_record
    assert record is not None
    assert record.evaluation is not None
    return record.evaluation.passed, record.evaluation.description or ""


def test_a_range_over_observed_windows_tells_what_is_stored_of_them(
    stored: Pipeline, later: Callable[[float], None]
) -> None:
    stored.run(SECOND)
    later(2)

    result = stored.run(LIVE_ON_TUESDAY, SECOND)

    for key in (LIVE_ON_TUESDAY, SECOND):
        assert metadata(result, "quotes", key)["quotes"] == len(stored.store.load([key])) == 4
        assert metadata(result, "mongo_price_history", key)["rows"] == 4


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (0.1, "looks like a 1:10 split: previous close"),
        (100, "looks like a 100:1 reverse split or a unit error: previous close"),
    ],
)
def test_a_move_that_explains_itself_says_so(stored: Pipeline, factor: float, words: str) -> None:
    before = row(stored, LIVE_ON_TUESDAY)
    close = round(before.previous_close * factor, 2)
    stored.sandbox.faults = [times(stored, factor, regularMarketPreviousClose=close)]

    passed, why = checks(stored.run(SECOND))["prices_plausible"]

    assert not passed
    assert f"{words} {close:.2f} where {before.price:.2f} was stored" in why
    assert '{"ops": {"kafka_publication": {"config": {"accept_moves": ["VALE3"]}}}}' in why


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"currency": "USD"}, "priced in 'USD', not in BRL"),
        ({"longName": "x" * 2**20}, "unusable name of 1,048,576 characters"),
        ({"regularMarketTime": "2026-11-17T18:02:00.000Z"}, "unusable market time"),
        (
            {"regularMarketTime": "2026-11-16T20:00:00.000Z"},
            "no price of this session: the last one is of 2026-11-16 17:00",
        ),
    ],
)
def test_an_odd_field_costs_its_ticker_alone(
    pipeline: Pipeline, fields: dict[str, Any], reason: str
) -> None:
    pipeline.sandbox.faults = [Fault(ticker=VICTIM, fields=fields)]

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert result.success
    [failed] = metadata(result, "quotes")["failed"]
    assert failed["ticker"] == VICTIM
    assert reason in failed["reason"]
    assert len(pipeline.events()) == len(pipeline.documents()) == 3


@pytest.mark.parametrize(("plan", "passed"), [("pro", False), ("free", True)])
def test_a_window_that_was_observed_late_says_so(
    make_pipeline: Callable[..., Any], plan: str, passed: bool
) -> None:
    with make_pipeline(datetime(2026, 11, 17, 18, 29, tzinfo=UTC), plan=plan) as pipeline:
        result = pipeline.run(LIVE_ON_TUESDAY)

        assert metadata(result, "quotes")["observed_minutes_after_end"] == 29
        assert checks(result)["observed_in_time"][0] is passed


def test_the_row_says_where_the_price_came_from(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY)

    origins = {quote.origin for quote in pipeline.store.load([LIVE_ON_TUESDAY])}
    assert origins == {document["origin"] for document in pipeline.documents()}
    assert len(origins) == 1


def test_an_accepted_price_is_published_although_the_database_is_away(stored: Pipeline) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    stored.run(SECOND)
    uri, stored.mongo_uri = stored.mongo_uri, "mongodb://127.0.0.1:1"

    assert not accept(stored, SECOND, VICTIM).success

    assert len(prices(stored)) == 2
    stored.mongo_uri = uri
    assert accept(stored, SECOND, VICTIM).success
    (document,) = stored.documents({"_id": f"{VICTIM}|2026-11-17T18:00:00Z"})
    assert document["decision"] == "accepted"


def test_a_range_of_a_year_is_told_from_what_is_published(stored: Pipeline) -> None:
    """Dagster answers 10,000 records at a time, and refuses to be asked for more."""
    windows = [each for day in range(365) for each in WINDOWS.of_session(A_YEAR_AGO + day * DAY)]

    assert len(windows) > 3_000
    found = sent(stored.instance, windows, stored.topic)
    assert [each for each in windows if found[each]] == [WINDOWS.from_key(LIVE_ON_TUESDAY)]


@pytest.mark.parametrize("how", ["too late", "without Kafka", "too late, by the job"])
def test_an_accepted_price_that_was_never_sent_is_missing(
    stored: Pipeline, later: Callable[[float], None], how: str
) -> None:
    assert stored.run(SECOND).success
    later(1.5)
    stored.sandbox.faults = [times(stored, 0.1, "PETR4")]
    assert stored.run(SECOND).success
    if how == "without Kafka":
        with stored.without_kafka():
            assert not accept(stored, SECOND, "PETR4").success
        later(2)
        assert stored.run(SECOND, select="kafka_publication").success
    elif how == "too late":
        later(2)
        assert accept(stored, SECOND, "PETR4").success
    else:
        later(2)
        assert launch_accept_moves(stored, "PETR4").success

    passed, why = shown(stored, "kafka_publication", "every_quote_delivered")

    assert row(stored, SECOND, "PETR4").decision == "accepted"
    assert not passed
    assert "missing on the topic: PETR4" in why


@pytest.mark.parametrize("tickers", [[], [""]])
def test_nothing_to_accept_is_refused(stored: Pipeline, tickers: list[str]) -> None:
    result = launch_accept_moves(stored, *tickers)

    assert not result.success
    assert "name those whose withheld price is right" in logs(stored, result)


def test_a_range_needs_answers_for_its_live_window(pipeline: Pipeline) -> None:
    pipeline.sandbox.faults = [Fault(status=404)]

    result = pipeline.run("2026-11-17T13:30-0300", LIVE_ON_TUESDAY)

    assert "answered for 0 of 4 tickers" in failure_of(result)
    assert pipeline.store.reading().windows([LIVE_ON_TUESDAY]) == {LIVE_ON_TUESDAY: None}


def test_the_share_of_answers_holds_for_the_live_window_of_a_range(
    make_pipeline: Callable[..., Any],
) -> None:
    with make_pipeline(plan="pro") as pipeline:
        pipeline.brapi = {"min_answered_share": 0.9}
        pipeline.sandbox.faults = [
            Fault(ticker=ticker, fields={"regularMarketPrice": None})
            for ticker in ("PETR4", "BBAS3")
        ]

        assert not pipeline.run("2026-11-17T12:30-0300", LIVE_ON_TUESDAY).success

        assert pipeline.events() == []


def test_a_range_whose_history_failed_says_only_what_is_so(
    make_pipeline: Callable[..., Any],
) -> None:
    with make_pipeline(remaining=2) as pipeline:
        result = pipeline.run("2026-11-16T17:30-0300", LIVE_ON_TUESDAY)

        _, why = checks(result)["all_tickers_quoted"]
        assert "An earlier quote is kept" not in why
        assert why.endswith("Materialize again: 2026-11-16T17:30-0300.")


@pytest.mark.parametrize("path", ["~/quotes", "file://HERE/home/quotes"])
def test_the_path_of_the_files_may_be_a_home_or_an_address(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pipeline.folder = path.replace("HERE", str(tmp_path))  # type: ignore[assignment]

    assert pipeline.run(LIVE_ON_TUESDAY).success

    assert (tmp_path / "home/quotes/quotes" / f"{LIVE_ON_TUESDAY}.parquet").exists()


def test_an_address_of_files_that_nobody_serves_is_named(pipeline: Pipeline) -> None:
    pipeline.folder = "nosuch://bucket"  # type: ignore[assignment]

    assert "Check QUOTES_PATH" in failure_of(pipeline.run(LIVE_ON_TUESDAY))


def test_a_publication_is_not_forgotten(stored: Pipeline, later: Callable[[float], None]) -> None:
    later(2)
    for _ in range(20):
        stored.instance.report_runless_asset_event(
            dg.AssetMaterialization("kafka_publication", partition=LIVE_ON_TUESDAY)
        )

    result = stored.run(LIVE_ON_TUESDAY, select="kafka_publication")

    assert checks(result)["every_quote_delivered"][0]
