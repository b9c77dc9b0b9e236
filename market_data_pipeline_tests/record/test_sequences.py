"""Sequences of runs that say something which the random ones of `test_any_sequence` do not."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault
from confluent_kafka import Producer

from market_data_pipeline.market.windows import in_sao_paulo
from market_data_pipeline.publication import asset, client
from market_data_pipeline.publication.checks import publications
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline.runs.turn import BRAPI, KAFKA, turn
from market_data_pipeline_tests.conftest import (
    LIVE_ON_TUESDAY,
    TUESDAY_15_00,
    ChangeSettings,
    Pipeline,
    SetClock,
    at,
)
from market_data_pipeline_tests.observed import checks, failure_of, logs, metadata, said
from market_data_pipeline_tests.record.helpers import (
    CENTS,
    NOWHERE,
    SECOND,
    VICTIM,
    Later,
    accept,
    prices,
    row,
    times,
)
from market_data_pipeline_tests.supervised import wait_until

OTHERS = [Fault(ticker=ticker, status=404) for ticker in ("PETR4", "BBAS3", "HGLG11")]

pytestmark = pytest.mark.usefixtures("four_instruments")


@pytest.mark.parametrize(
    ("days", "first", "settings"),
    [
        (1, "2026-11-16T14:30-0300", {"PARTITIONS_START": "2026-11-17"}),
        (80, "2026-08-28T17:30-0300", {}),
    ],
)
def test_neither_a_gap_nor_a_later_first_day_is_an_escape_from_the_guard(
    pipeline: Pipeline,
    set_clock: SetClock,
    change_settings: ChangeSettings,
    days: int,
    first: str,
    settings: dict[str, str],
) -> None:
    set_clock(TUESDAY_15_00 - timedelta(days=days))
    assert pipeline.run(first).success
    set_clock(TUESDAY_15_00)
    if settings:
        change_settings(**settings)
    pipeline.sandbox.faults = [CENTS]

    assert not checks(pipeline.run(LIVE_ON_TUESDAY))["prices_plausible"][0]
    assert 9_000 not in prices(pipeline)
    assert row(pipeline, LIVE_ON_TUESDAY).reference_price == row(pipeline, first).price


def test_what_is_not_withheld_cannot_be_accepted(stored: Pipeline) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    stored.run(SECOND)
    before, asked = len(stored.events()), len(stored.sandbox.requests)

    for tickers in (["VALE"], ["PETR4", VICTIM], [""], ["VALE\u0663"]):
        assert failure_of(accept(stored, SECOND, *tickers)) == (
            "PETR4 cannot be accepted: withheld are VALE3."
            if VICTIM in tickers
            else "`accept` takes tickers such as MGLU3, and nothing else."
        )
        assert row(stored, SECOND).decision == "withheld"
    assert len(stored.events()) == before
    assert len(stored.sandbox.requests) == asked

    # `accept:` without a value is none.
    assert stored.run(SECOND, config={"quotes": {"accept": None}}).success
    assert len(stored.sandbox.requests) > asked


def test_a_made_up_price_that_may_not_leave_is_accepted_in_the_record(
    pipeline: Pipeline, later: Later
) -> None:
    pipeline.publish_made_up_prices = False
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    later(1)
    pipeline.sandbox.faults = [CENTS]
    pipeline.run(SECOND, select="quotes")
    assert pipeline.run(SECOND, select="quotes", config={"quotes": {"accept": [VICTIM]}}).success

    (accepted,) = [
        each for each in pipeline.store.reading().rows_of([SECOND]) if each.ticker == VICTIM
    ]
    assert accepted.decision == "accepted"


def test_no_stale_answer_replaces_an_accepted_price(stored: Pipeline, later: Later) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    stored.run(SECOND)
    accept(stored, SECOND, VICTIM)
    accepted = row(stored, SECOND)
    stored.sandbox.faults = [times(stored, 1.0)]
    for moment in (1.3, 1.4, 1.5):
        later(moment)
        passed, why = checks(stored.run(SECOND))["all_tickers_quoted"]
        assert not passed
        assert why == "1 tickers failed: VALE3. An earlier quote is kept for 1 of them."

    assert row(stored, SECOND) == accepted
    assert {*prices(stored)[1:]} == {accepted.price}


@pytest.mark.parametrize("hours", [0, 1])
def test_a_price_that_moved_too_far_or_is_older_replaces_no_trusted_one(
    pipeline: Pipeline, later: Later, hours: int
) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    before = row(pipeline, LIVE_ON_TUESDAY)
    older = before.updated_at - timedelta(hours=hours)
    price = before.price + 0.01 if hours else 9_000
    fields = {"regularMarketPrice": price, "regularMarketTime": older.isoformat()}
    pipeline.sandbox.faults = [Fault(ticker=VICTIM, fields=fields)]
    later(0.5)

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert row(pipeline, LIVE_ON_TUESDAY) == before
    assert {*prices(pipeline)} == {before.price}
    assert checks(result)["history_equals_quotes"][0]
    assert checks(result)["every_quote_delivered"][0]
    [failed] = metadata(result, "quotes")["failed"]
    assert failed == {
        "ticker": VICTIM,
        "reason": f"the price is of {in_sao_paulo(older)}, older than the stored one: not used"
        if hours
        else "moved too far, so the stored price is kept: VALE3 9000.00 after "
        f"{before.previous_close:.2f}, the previous close",
    }


def test_one_answer_under_another_symbol_is_no_measure_for_the_instrument(
    pipeline: Pipeline, later: Later
) -> None:
    odd = {"symbol": "MGLU3", "regularMarketPrice": 9.1, "regularMarketPreviousClose": 9.0}
    pipeline.sandbox.faults = [Fault(ticker=VICTIM, numbers=[1], fields=odd)]
    assert pipeline.run(LIVE_ON_TUESDAY).success
    later(1)

    assert checks(pipeline.run(SECOND))["prices_plausible"][0]
    assert len(prices(pipeline)) == 1


def test_a_first_price_is_the_measure_of_its_own_window(stored: Pipeline, later: Later) -> None:
    first = row(stored, LIVE_ON_TUESDAY)
    later(0)
    stored.sandbox.faults = [CENTS]

    assert not checks(stored.run(LIVE_ON_TUESDAY))["all_tickers_quoted"][0]
    assert row(stored, LIVE_ON_TUESDAY) == first
    assert {*prices(stored)} == {first.price}


def test_an_acceptance_in_a_range_says_why_a_window_of_it_is_empty(stored: Pipeline) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    stored.run(SECOND)
    empty = "2026-11-17T14:00-0300"
    stored.run(empty)

    result = stored.run(empty, SECOND, config={"quotes": {"accept": [VICTIM]}})

    assert row(stored, SECOND).decision == "accepted"
    assert (
        metadata(result, "quotes", empty)["contents"] == "EMPTY: the free plan has daily bars only"
    )
    assert checks(result)["all_tickers_quoted"][0]


@pytest.mark.parametrize(
    ("away", "documents", "published"),
    [("kafka_publication", 1, 1), ("mongo_price_history", 0, 2)],
)
def test_an_acceptance_is_not_lost_because_a_sink_is_away(
    stored: Pipeline, away: str, documents: int, published: int
) -> None:
    accepted = {"ticker": VICTIM, "decision": "accepted"}
    stored.sandbox.faults = [times(stored, 0.1)]
    stored.run(SECOND)
    uri = stored.mongo_uri
    with stored.without_kafka() if away == "kafka_publication" else nullcontext():
        stored.mongo_uri = NOWHERE if away == "mongo_price_history" else uri
        assert not accept(stored, SECOND, VICTIM).success
        stored.mongo_uri = uri
    assert len(stored.documents(accepted)) == documents
    assert len(prices(stored)) == published

    # What `launch_missing` launches knows nothing of the acceptance.
    assert stored.run(SECOND, select=away).success

    assert len(stored.documents(accepted)) == 1
    assert len(prices(stored)) == 2


def never_sent(pipeline: Pipeline, later: Later) -> None:
    with pipeline.without_kafka():
        assert not pipeline.run(LIVE_ON_TUESDAY).success


def sent_elsewhere(pipeline: Pipeline, later: Later) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    pipeline.topic += "-v2"


def one_came_later(pipeline: Pipeline, later: Later) -> None:
    pipeline.sandbox.faults = [Fault(ticker=VICTIM, status=404)]
    assert pipeline.run(LIVE_ON_TUESDAY).success
    pipeline.sandbox.faults = OTHERS
    later(0.1)
    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")
    shown = metadata(result, "quotes")
    assert shown["quotes"] == len(pipeline.store.load([LIVE_ON_TUESDAY])) == 4
    assert not [name for name in shown if "without_row" in name]
    assert "An earlier quote is kept for 3 of them." in checks(result)["all_tickers_quoted"][1]


def observed_again(pipeline: Pipeline, later: Later) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    later(0.5)
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success


def accepted_without_kafka(pipeline: Pipeline, later: Later) -> None:
    pipeline.sandbox.faults = [Fault(ticker=VICTIM, fields={"regularMarketPrice": 9_000})]
    assert pipeline.run(LIVE_ON_TUESDAY).success
    with pipeline.without_kafka():
        assert not accept(pipeline, LIVE_ON_TUESDAY, VICTIM).success


def accepted_too_late(pipeline: Pipeline, later: Later) -> None:
    pipeline.sandbox.faults = [Fault(ticker=VICTIM, fields={"regularMarketPrice": 9_000})]
    assert pipeline.run(LIVE_ON_TUESDAY).success
    later(1)
    result = accept(pipeline, LIVE_ON_TUESDAY, VICTIM)
    assert result.success
    assert "they take effect with the next window" in logs(pipeline, result)
    assert "not live" in metadata(result, "kafka_publication")["reason"]
    assert pipeline.run(SECOND).success
    assert len(prices(pipeline)) == 1


NEVER = f"{LIVE_ON_TUESDAY} has no recorded publication (it was live until 15:30)."
LATER = (
    f"{LIVE_ON_TUESDAY} was sent before all of its quotes were stored; missing on the topic: "
    "{} (it was live until 15:30)."
)


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (never_sent, NEVER),
        (sent_elsewhere, NEVER),
        (one_came_later, LATER.format(VICTIM)),
        (observed_again, LATER.format("BBAS3, HGLG11, PETR4, VALE3")),
        (accepted_without_kafka, LATER.format(VICTIM)),
        (accepted_too_late, LATER.format(VICTIM)),
    ],
)
def test_a_price_that_never_reached_the_topic_is_missing_there(
    pipeline: Pipeline, later: Later, happens: Callable[[Pipeline, Later], None], why: str
) -> None:
    happens(pipeline, later)
    later(1)

    result = pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication")

    assert checks(result)["every_quote_delivered"] == (False, why)


def test_a_window_whose_prices_are_all_withheld_lacks_none_on_the_topic(
    stored: Pipeline,
) -> None:
    stored.sandbox.faults = [replace(CENTS, ticker=None)]

    result = stored.run(SECOND)

    passed, why = checks(result)["every_quote_delivered"]
    assert passed
    assert "Withheld, as their prices have moved too far: " in why
    reason = metadata(result, "kafka_publication")["reason"]
    assert reason == "every quote is withheld or history"


def test_a_range_of_a_year_is_told_from_what_is_published(stored: Pipeline) -> None:
    """Dagster answers 10,000 records at a time, and refuses to be asked for more."""
    days = (date(2026, 1, 2) + timedelta(days=n) for n in range(365))
    windows = [each for day in days for each in WINDOWS.of_session(day)]

    found = publications(stored.instance, windows, stored.topic)

    assert len(windows) > 3_000
    assert [each for each in windows if found[each]] == [WINDOWS.from_key(LIVE_ON_TUESDAY)]


@contextmanager
def a_run_waits(pipeline: Pipeline, name: str, key: str, step: str) -> Iterator[None]:
    """A run of one step waits for its turn in the `with` block, and succeeds after it."""
    with ThreadPoolExecutor(1) as thread:
        with dg.build_asset_context(instance=pipeline.instance) as context, turn(context, name):
            waiting = thread.submit(pipeline.run, key, select=step)
            words = f"Waiting for another run to release {name}"
            wait_until(lambda: said(pipeline.instance, words), "it waits")
            yield
        assert waiting.result().success


def test_a_price_that_is_stored_while_a_run_waits_for_its_turn_counts(
    pipeline: Pipeline, instance: dg.DagsterInstance, later: Later
) -> None:
    pipeline.instance = instance
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    older, moment = row(pipeline, LIVE_ON_TUESDAY), timedelta(seconds=1)
    newer = replace(older, price=older.price * 10, observed_at=older.observed_at + moment)
    newest = replace(newer, price=older.price * 100, observed_at=newer.observed_at + moment)

    with a_run_waits(pipeline, KAFKA, LIVE_ON_TUESDAY, "kafka_publication"):
        pipeline.store.save([newer], [LIVE_ON_TUESDAY])
    later(1)
    with a_run_waits(pipeline, BRAPI, SECOND, "quotes"):
        pipeline.store.save([newest], [LIVE_ON_TUESDAY])

    assert prices(pipeline) == [newer.price]
    assert row(pipeline, SECOND).reference_price == newest.price


def test_a_window_that_is_over_when_its_turn_comes_is_not_published(
    pipeline: Pipeline, instance: dg.DagsterInstance, later: Later
) -> None:
    pipeline.instance = instance
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success

    with a_run_waits(pipeline, KAFKA, LIVE_ON_TUESDAY, "kafka_publication"):
        later(1)

    assert pipeline.events() == []
    missing = publications(instance, [WINDOWS.from_key(LIVE_ON_TUESDAY)], pipeline.topic)
    assert [*missing.values()] == [[]]


def test_a_run_that_has_lost_its_turn_publishes_what_is_newest(
    pipeline: Pipeline, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL releases a lock whose connection was cut."""
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    first = row(pipeline, LIVE_ON_TUESDAY)
    monkeypatch.setattr(asset, "turn", lambda *_: nullcontext())

    class Late(Producer):
        def init_transactions(self, *arguments: Any) -> None:
            if not pipeline.sandbox.faults:
                fields = {"regularMarketPrice": first.price + 1}
                pipeline.sandbox.faults = [Fault(ticker=VICTIM, fields=fields)]
                later(0.5)
                assert pipeline.run(LIVE_ON_TUESDAY).success
            super().init_transactions(*arguments)

    monkeypatch.setattr(client, "Producer", Late)

    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success
    assert {*prices(pipeline)} == {first.price + 1}


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


def test_a_range_needs_answers_for_its_live_window(pipeline: Pipeline) -> None:
    pipeline.sandbox.faults = [Fault(status=404)]

    result = pipeline.run("2026-11-17T13:30-0300", LIVE_ON_TUESDAY)

    assert "answered for 0 of 4 tickers" in failure_of(result)
    assert pipeline.store.reading().windows([LIVE_ON_TUESDAY]) == {LIVE_ON_TUESDAY: None}


@pytest.mark.parametrize(
    "path", ["~/quotes", "file://HERE/home/quotes", "nosuch://bucket", "s3:/b"]
)
def test_the_path_of_the_files_may_be_a_home_or_an_address(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pipeline.folder = path.replace("HERE", str(tmp_path))  # type: ignore[assignment]

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    if path in ("nosuch://bucket", "s3:/b"):
        assert "Check QUOTES_PATH" in failure_of(result)
    else:
        assert (tmp_path / "home/quotes/quotes" / f"{LIVE_ON_TUESDAY}.parquet").exists()


@pytest.mark.parametrize(
    ("now", "price_of"),
    [
        ("2026-11-18T01:32", "2026-11-18T01:30"),
        ("2026-11-18T09:52", "2026-11-18T09:50"),  # the call before the next session
        ("2026-11-18T09:59:59", "2026-11-18T10:00"),
    ],
)
def test_no_price_of_a_later_day_is_in_the_last_window_of_a_session(
    make_pipeline: Callable[..., Any], now: str, price_of: str
) -> None:
    with make_pipeline(at(now)) as pipeline:
        pipeline.sandbox.faults = [
            Fault(ticker=VICTIM, fields={"regularMarketTime": at(price_of).isoformat()})
        ]

        result = pipeline.run("2026-11-17T17:30-0300")

        [failed] = metadata(result, "quotes", "2026-11-17T17:30-0300")["failed"]
        said = f"no price of this session: the last one is of {price_of.replace('T', ' ')}"
        assert failed == {"ticker": VICTIM, "reason": said}
        assert len(pipeline.events()) == len(pipeline.documents()) == 3
