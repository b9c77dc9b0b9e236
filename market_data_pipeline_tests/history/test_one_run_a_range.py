"""A range is one run: what it asks, what it stores, what it publishes and what it tells."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.publication.checks import publications
from market_data_pipeline.publication.errors import PublicationError
from market_data_pipeline.publication.event import Event
from market_data_pipeline.publication.kafka import Kafka, Offsets
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline_tests.conftest import (
    INSTRUMENTS,
    LIVE_ON_TUESDAY,
    TUESDAY_15_00,
    Pipeline,
    SetClock,
    SetWatchlist,
    at,
)
from market_data_pipeline_tests.history.truth import bars, without
from market_data_pipeline_tests.observed import checks, logs, metadata

ASSETS = ("quotes", "mongo_price_history", "kafka_publication")
FIRST, MIDDLE, LAST = "2026-11-17T13:00-0300", "2026-11-17T13:30-0300", "2026-11-17T14:00-0300"
BEFORE, EMPTY, CLOSING = "2026-11-16T16:30-0300", "2026-11-16T17:00-0300", "2026-11-16T17:30-0300"
DAILY = "the free plan has daily bars only"
# When it asked, and what it could compare with.
OF_THE_RUN = ("run_id", "observed_at", "reference_price")

pytestmark = pytest.mark.usefixtures("four_instruments")


def coverage(result: Any) -> dict[str, dict[str, Any]]:
    """The table of the check, by window."""
    [evaluation] = [
        each
        for each in result.get_asset_check_evaluations()
        if each.check_name == "all_tickers_quoted"
    ]
    records = evaluation.metadata["coverage"].records
    return {str(record.data["window"]): without(record.data, "window") for record in records}


def test_a_week_on_pro_is_three_requests(pro: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHLIST_FILE")

    result = pro.run("2026-11-09T10:00-0300", "2026-11-13T17:30-0300", select="quotes")

    assert len(pro.sandbox.requests) == 3
    materialized = result.asset_materializations_for_node("quotes")
    assert len(materialized) == 5 * 16
    told = metadata(result, "quotes")
    assert (told["requests"], told["run"]) == (3, "80 of 80 windows filled")
    assert told["quota_left"] == 500_000 - 3
    files = [file for file in pro.folder.rglob("*") if file.is_file()]
    assert sorted(file.name for file in files) == sorted(
        f"{event.partition}.parquet" for event in materialized
    )


def test_alone_in_a_range_and_twice_a_window_is_stored_the_same(pro: Pipeline) -> None:
    found = []
    for windows in ((MIDDLE,), (FIRST, LAST), (FIRST, LAST), (MIDDLE,)):
        assert pro.run(*windows).success
        of_window = pro.documents({"window_end": at("2026-11-17T14:00")})
        found.append([without(each, *OF_THE_RUN) for each in of_window])

    assert len(found[0]) == 4
    assert found == found[:1] * 4


@pytest.mark.parametrize(("plan", "bars"), [("pro", 2 * 4), ("free", 0)])
def test_a_live_quote_is_neither_replaced_by_a_bar_nor_removed_without_one(
    pipeline: Pipeline, set_clock: SetClock, plan: str, bars: int
) -> None:
    pipeline.sandbox.plan = plan
    pipeline.run(LIVE_ON_TUESDAY)
    observed = pipeline.documents()
    set_clock(at("2026-11-17T16:00:05"))

    result = pipeline.run(MIDDLE, LIVE_ON_TUESDAY)

    kept = pipeline.documents({"source": "live"})
    assert [without(each, "run_id") for each in kept] == [
        without(each, "run_id") for each in observed
    ]
    assert len(pipeline.documents()) == 4 + bars
    assert all(passed for passed, _ in checks(result).values())
    assert metadata(result, "quotes", LIVE_ON_TUESDAY)["quotes"] == 4
    assert metadata(result, "mongo_price_history", LIVE_ON_TUESDAY)["rows"] == 4
    assert len(pipeline.events()) == 4
    told = metadata(result, "kafka_publication", LIVE_ON_TUESDAY)
    assert (told["contents"], told["published"]) == ("4 events", 0)
    assert told["reason"] == "published by an earlier run"


def test_each_window_tells_its_rows_and_why_it_has_no_more(
    pro: Pipeline, set_clock: SetClock, watchlist: SetWatchlist
) -> None:
    watchlist([*INSTRUMENTS, "ITUB4"])
    set_clock(at("2026-11-17T16:00:05"))
    history = bars(pro.sandbox, "BBAS3", date(2026, 11, 17), "30m")
    kept = [bar for bar in history if bar["date"] != history[7]["date"]]  # 13:30
    pro.sandbox.faults = [
        Fault(ticker="BBAS3", fields={"historicalDataPrice": kept}),
        Fault(ticker="ITUB4", drop=True),
    ]

    result = pro.run(FIRST, LAST)

    assert result.success
    assert {w: (row["quotes"], row["failed"]) for w, row in coverage(result).items()} == {
        FIRST: (4, "ITUB4"),
        MIDDLE: (3, "ITUB4"),
        LAST: (4, "ITUB4"),
    }
    assert coverage(result)[MIDDLE]["no trade"] == "BBAS3"
    assert coverage(result)[FIRST]["no trade"] == ""
    told = metadata(result, "quotes", MIDDLE)
    assert told["quotes"] == told["dagster/partition_row_count"] == 3
    assert told["tickers_without_row (no trade)"] == 1
    assert told["tickers_without_row (failed)"] == 1
    assert "tickers_without_row (no trade)" not in metadata(result, "quotes", LAST)
    for key, rows in pro.store.reading().windows([FIRST, MIDDLE, LAST]).items():
        shown = {row["ticker"]: row["price"] for row in metadata(result, "quotes", key)["prices"]}
        assert shown == {quote.ticker: f"{quote.price:,.2f}" for quote in rows or ()}


def test_a_window_that_can_have_no_bar_ends_empty_without_a_request(pipeline: Pipeline) -> None:
    result = pipeline.run(EMPTY)

    assert result.success
    assert pipeline.sandbox.requests == []
    assert pipeline.documents() == []
    assert pipeline.events() == []
    told = metadata(result, "quotes")
    assert (told["requests"], told["coverage_percent"]) == (0, 0)
    assert told["without_row"] == f"plan: {DAILY}"
    assert "market" not in told
    said = f"0 of 1 windows filled: {DAILY}."
    assert checks(result)["all_tickers_quoted"] == (True, said)
    assert "No request was sent" in logs(pipeline, result)


def test_each_window_says_first_what_it_holds_and_the_run_how_many_it_filled(
    pipeline: Pipeline,
) -> None:
    """Dagster calls a backfill failed that leaves a window unmaterialized, so an empty one is too:
    what tells it from the others is the first entry of the metadata."""
    result = pipeline.run(BEFORE, CLOSING)

    assert result.success
    told = {(each, key): metadata(result, each, key) for each in ASSETS for key in (EMPTY, CLOSING)}
    none = "EMPTY: `quotes` has no price for it"
    assert {place: next(iter(shown.items())) for place, shown in told.items()} == {
        ("quotes", EMPTY): ("contents", f"EMPTY: {DAILY}"),
        ("quotes", CLOSING): ("contents", "4 quotes"),
        ("mongo_price_history", EMPTY): ("contents", none),
        ("mongo_price_history", CLOSING): ("contents", "4 documents"),
        ("kafka_publication", EMPTY): ("contents", none),
        ("kafka_publication", CLOSING): (
            "contents",
            "EMPTY: the window is not live, and `publish_history` is not set",
        ),
    }
    filled = f"1 of 3 windows filled: {DAILY}"
    assert filled in logs(pipeline, result)
    assert told["quotes", EMPTY]["run"] == filled
    assert told["mongo_price_history", EMPTY]["run"].startswith("1 of 3 windows filled")
    assert told["kafka_publication", EMPTY]["run"].startswith("0 of 3 windows publish")


@pytest.mark.parametrize(
    ("windows", "lost", "following", "said"),
    [
        (("2026-11-16T12:30-0300", "2026-11-16T13:30-0300"), [6], LAST, "2026-11-16T13:00-0300"),
        # From November on stocks close at 18:00, and before at 17:00: then no plan has a bar.
        ((BEFORE, CLOSING), [14], FIRST, EMPTY),
        (("2026-10-05T16:30-0300", "2026-10-05T17:30-0300"), [14, 15], "2026-10-06T10:00-0300", ""),
    ],
)
def test_a_window_of_the_session_without_any_trade_is_named(
    pro: Pipeline,
    watchlist: SetWatchlist,
    windows: tuple[str, str],
    lost: list[int],
    following: str,
    said: str,
) -> None:
    watchlist(("PETR4",))
    history = bars(pro.sandbox, "PETR4", date.fromisoformat(windows[0][:10]), "30m")
    kept = [bar for number, bar in enumerate(history) if number not in lost]
    pro.sandbox.faults = [Fault(ticker="PETR4", fields={"historicalDataPrice": kept})]

    result = pro.run(*windows)

    filled = f"{3 - len(lost)} of 3 windows filled: there was no trade."
    assert checks(result)["all_tickers_quoted"] == (
        (False, f"{filled} Materialize again: {said}.") if said else (True, filled)
    )
    pro.sandbox.faults = []
    (price,) = metadata(pro.run(following), "quotes")["prices"]
    assert ("day" in price) == (windows[1][11:16] == "17:30")  # since the close


def test_a_failure_in_the_live_window_is_not_told_of_the_others(pro: Pipeline) -> None:
    # The live window is asked for first.
    fields = {"regularMarketPrice": None}
    pro.sandbox.faults = [Fault(ticker="BBAS3", numbers=[1], fields=fields)]

    result = pro.run(LAST, LIVE_ON_TUESDAY)

    assert coverage(result)[LIVE_ON_TUESDAY]["failed"] == "BBAS3"
    assert coverage(result)[LAST]["failed"] == ""
    assert metadata(result, "quotes", LAST)["quotes"] == 4


def test_a_range_that_ends_in_the_live_window_publishes_that_one_alone_unless_told_otherwise(
    pro: Pipeline,
) -> None:
    result = pro.run(FIRST, LIVE_ON_TUESDAY)

    live = {d["ticker"]: d for d in pro.documents({"source": "live"})}
    assert {d["window_end"] for d in live.values()} == {TUESDAY_15_00.replace(second=0)}
    assert len(pro.documents()) == 4 * 4
    assert sorted(seen.event.key.decode() for seen in pro.events()) == sorted(live)
    told = metadata(result, "kafka_publication", LIVE_ON_TUESDAY)
    assert (told["published"], told["reason"]) == (4, "the window is live")
    for window in (FIRST, MIDDLE, LAST):
        assert metadata(result, "kafka_publication", window)["published"] == 0
    assert (
        "1 of 4 windows published: the window is not live, and `publish_history` is not set"
    ) in logs(pro, result)

    publish = {"kafka_publication": {"publish_history": True}}
    result = pro.run(FIRST, LAST, select="kafka_publication", config=publish)

    assert len(pro.events()) == len(pro.documents())
    told = metadata(result, "kafka_publication", MIDDLE)
    assert (told["published"], told["reason"]) == (4, "publish_history is set")


def test_what_a_range_has_published_before_it_fails_is_recorded(
    pro: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, calls = Kafka.publish, itertools.count(1)

    def once(kafka: Kafka, events: Sequence[Event]) -> Offsets:
        if next(calls) > 1:
            raise PublicationError("the broker is away")
        return publish(kafka, events)

    monkeypatch.setattr(Kafka, "publish", once)
    config = {"kafka_publication": {"publish_history": True}}
    result = pro.run(FIRST, LAST, config=config)

    assert len(pro.events()) == 4
    windows = [WINDOWS.from_key(key) for key in (FIRST, MIDDLE, LAST)]
    found = publications(pro.instance, windows, pro.topic)
    assert [[each.published for each in found[window]] for window in windows] == [[4], [], []]
    assert f"{MIDDLE} was not published" in checks(result)["every_quote_delivered"][1]


def test_a_history_that_fails_costs_a_range_nothing_of_its_live_window(pro: Pipeline) -> None:
    # The live window is asked for first.
    spent = {"x-ratelimit-remaining": "0"}
    pro.sandbox.faults = [Fault(status=402, headers=spent, numbers=range(2, 100))]

    result = pro.run(LAST, LIVE_ON_TUESDAY)

    assert result.success
    assert {d["source"] for d in pro.documents()} == {"live"}
    assert len(pro.documents()) == len(pro.events()) == 4
    assert checks(result)["all_tickers_quoted"] == (
        False,
        "4 tickers failed: PETR4, BBAS3, HGLG11, VALE3. 1 of 2 windows filled: Brapi gave no "
        f"usable answer. Materialize again: {LAST}.",
    )
    assert "PETR4 failed: Brapi answered 402" in logs(pro, result)
