"""A range is one run: what it asks, what it stores, what it publishes and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import bson
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline_tests.conftest import (
    INSTRUMENTS,
    LIVE_ON_TUESDAY,
    TUESDAY_15_00,
    Pipeline,
    SetClock,
    SetWatchlist,
)
from market_data_pipeline_tests.history.truth import bars, without
from market_data_pipeline_tests.observed import checks, logs, metadata

Make = Callable[..., Any]
FIRST, MIDDLE, LAST = "2026-11-17T13:00-0300", "2026-11-17T13:30-0300", "2026-11-17T14:00-0300"
TUESDAY_16_00 = datetime(2026, 11, 17, 19, 0, 5, tzinfo=UTC)

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


# When it asked, and what it could compare with.
OF_THE_RUN = ("run_id", "observed_at", "reference_price")


def stored(pipeline: Pipeline) -> list[bytes]:
    """The collection as bytes, apart from what belongs to the run."""
    return [
        bson.encode(dict(sorted(without(document, *OF_THE_RUN).items())))
        for document in pipeline.documents()
    ]


def test_a_week_on_pro_is_three_requests(
    make_pipeline: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHLIST_FILE")
    with make_pipeline(plan="pro") as pipeline:
        result = pipeline.run("2026-11-09T10:00-0300", "2026-11-13T17:30-0300", select="quotes")

        assert len(pipeline.sandbox.requests) == 3
        materialized = result.asset_materializations_for_node("quotes")
        assert len(materialized) == 5 * 16
        told = metadata(result, "quotes")
        assert (told["requests"], told["run"]) == (3, "80 of 80 windows filled")
        assert told["quota_left"] == 500_000 - 3
        files = [file for file in pipeline.folder.rglob("*") if file.is_file()]
        assert sorted(file.name for file in files) == sorted(
            f"{event.partition}.parquet" for event in materialized
        )


def test_a_refusal_is_one_sentence_and_costs_nothing(make_pipeline: Make) -> None:
    with make_pipeline() as pipeline:
        result = pipeline.run("2026-08-13T17:30-0300", "2026-08-14T17:30-0300")

        assert not result.success
        assert (
            "The plan 'free' reaches back 3mo, to 2026-08-17; 2026-08-13 is too far back. "
            "No request was sent: choose later windows" in logs(pipeline, result)
        )
        assert pipeline.sandbox.requests == []
        assert pipeline.sandbox.remaining == 15_000
        assert pipeline.documents() == []


def test_alone_in_a_range_and_twice_a_window_is_stored_the_same(make_pipeline: Make) -> None:
    with make_pipeline(plan="pro") as pipeline:
        pipeline.run(MIDDLE)
        alone = stored(pipeline)
        pipeline.run(FIRST, LAST)
        in_range = stored(pipeline)
        pipeline.run(FIRST, LAST)

        assert stored(pipeline) == in_range
        assert len(alone) == 4
        assert set(alone) < set(in_range)
        pipeline.run(MIDDLE)
        assert stored(pipeline) == in_range


@pytest.mark.parametrize(("plan", "bars"), [("pro", 2 * 4), ("free", 0)])
def test_a_live_quote_is_neither_replaced_by_a_bar_nor_removed_without_one(
    make_pipeline: Make, set_clock: SetClock, plan: str, bars: int
) -> None:
    with make_pipeline(plan=plan) as pipeline:
        pipeline.run(LIVE_ON_TUESDAY)
        observed = pipeline.documents()
        set_clock(TUESDAY_16_00)
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


def test_each_window_tells_its_rows_and_why_it_has_no_more(
    make_pipeline: Make, watchlist: SetWatchlist
) -> None:
    watchlist([*INSTRUMENTS, "ITUB4"])
    with make_pipeline(plan="pro", now=TUESDAY_16_00) as pipeline:
        history = bars(pipeline.sandbox, "BBAS3", date(2026, 11, 17), "30m")
        kept = [bar for bar in history if bar["date"] != history[7]["date"]]  # 13:30
        pipeline.sandbox.faults = [
            Fault(ticker="BBAS3", fields={"historicalDataPrice": kept}),
            Fault(ticker="ITUB4", drop=True),
        ]
        result = pipeline.run(FIRST, LAST)

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


def test_a_window_that_can_have_no_bar_ends_empty_without_a_request(make_pipeline: Make) -> None:
    with make_pipeline() as pipeline:
        result = pipeline.run("2026-11-16T16:30-0300")

        assert result.success
        assert pipeline.sandbox.requests == []
        assert pipeline.documents() == pipeline.events() == []
        told = metadata(result, "quotes")
        assert (told["requests"], told["coverage_percent"]) == (0, 0)
        assert told["without_row"] == "plan: the free plan has daily bars only"
        assert "market" not in told
        assert checks(result)["all_tickers_quoted"] == (
            True,
            "0 of 1 windows filled: the free plan has daily bars only.",
        )
        assert "No request was sent" in logs(pipeline, result)


def test_a_failure_in_the_live_window_is_not_told_of_the_others(make_pipeline: Make) -> None:
    with make_pipeline(plan="pro") as pipeline:
        # The live window is asked for first.
        pipeline.sandbox.faults = [
            Fault(ticker="BBAS3", numbers=[1], fields={"regularMarketPrice": None})
        ]
        result = pipeline.run(LAST, LIVE_ON_TUESDAY)

        assert coverage(result)[LIVE_ON_TUESDAY]["failed"] == "BBAS3"
        assert coverage(result)[LAST]["failed"] == ""
        assert metadata(result, "quotes", LAST)["quotes"] == 4


def test_a_range_that_ends_in_the_live_window_publishes_that_one_alone_unless_told_otherwise(
    make_pipeline: Make,
) -> None:
    with make_pipeline(plan="pro") as pipeline:
        result = pipeline.run(FIRST, LIVE_ON_TUESDAY)

        live = {d["ticker"]: d for d in pipeline.documents({"source": "live"})}
        assert {d["window_end"] for d in live.values()} == {TUESDAY_15_00.replace(second=0)}
        assert len(pipeline.documents()) == 4 * 4
        assert sorted(seen.event.key.decode() for seen in pipeline.events()) == sorted(live)
        told = metadata(result, "kafka_publication", LIVE_ON_TUESDAY)
        assert (told["published"], told["reason"]) == (4, "the window is live")
        for window in (FIRST, MIDDLE, LAST):
            assert metadata(result, "kafka_publication", window)["published"] == 0
        assert (
            "1 of 4 windows published: the window is not live, and `publish_history` is not set"
        ) in logs(pipeline, result)

        publish = {"kafka_publication": {"publish_history": True}}
        result = pipeline.run(FIRST, LAST, select="kafka_publication", config=publish)

        assert len(pipeline.events()) == len(pipeline.documents())
        told = metadata(result, "kafka_publication", MIDDLE)
        assert (told["published"], told["reason"]) == (4, "publish_history is set")


def test_a_history_that_fails_costs_a_range_nothing_of_its_live_window(
    make_pipeline: Make,
) -> None:
    with make_pipeline(plan="pro") as pipeline:
        # The live window is asked for first.
        spent = {"x-ratelimit-remaining": "0"}
        pipeline.sandbox.faults = [Fault(status=402, headers=spent, numbers=range(2, 100))]
        result = pipeline.run(LAST, LIVE_ON_TUESDAY)

        assert result.success
        assert {d["source"] for d in pipeline.documents()} == {"live"}
        assert len(pipeline.documents()) == len(pipeline.events()) == 4
        assert checks(result)["all_tickers_quoted"] == (
            False,
            "4 tickers failed: PETR4, BBAS3, HGLG11, VALE3. 1 of 2 windows filled: Brapi gave no "
            f"usable answer. Materialize again: {LAST}.",
        )
        assert "PETR4 failed: Brapi answered 402" in logs(pipeline, result)
