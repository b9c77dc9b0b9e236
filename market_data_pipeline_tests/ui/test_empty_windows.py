"""A window that holds nothing does not look like one that does, and a run says how many there are.

Dagster calls a backfill failed that leaves a window unmaterialized, so what tells them apart is the
first entry of the metadata.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline, SetClock, SetWatchlist
from market_data_pipeline_tests.history.truth import bars
from market_data_pipeline_tests.observed import checks, logs, metadata

Make = Callable[..., Any]
ASSETS = ("quotes", "mongo_price_history", "kafka_publication")
FIRST, EMPTY, CLOSING = "2026-11-16T16:30-0300", "2026-11-16T17:00-0300", "2026-11-16T17:30-0300"
DAILY = "the free plan has daily bars only"
NOT_LIVE = "the window is not live, and `publish_history` is not set"
IN_THE_SUMMER_OF_NEW_YORK = datetime(2026, 10, 6, 22, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def one_instrument(watchlist: SetWatchlist) -> None:
    """Makes the watchlist one instrument long."""
    watchlist(("PETR4",))


def first_of(result: Any, asset: str, window: str) -> tuple[str, str]:
    """The first line that the page of a window shows."""
    name, value = next(iter(metadata(result, asset, window).items()))
    return name, value


def test_each_window_says_first_what_it_holds_and_the_run_how_many_it_filled(
    pipeline: Pipeline,
) -> None:
    result = pipeline.run(FIRST, CLOSING)

    assert result.success
    for asset, of in (("quotes", "quotes"), ("mongo_price_history", "documents")):
        assert first_of(result, asset, CLOSING) == ("contents", f"1 {of}")
    assert first_of(result, "quotes", EMPTY) == ("contents", f"EMPTY: {DAILY}")
    assert first_of(result, "mongo_price_history", EMPTY) == (
        "contents",
        "EMPTY: `quotes` has no price for it",
    )
    for window in (EMPTY, CLOSING):
        why = NOT_LIVE if window == CLOSING else "`quotes` has no price for it"
        assert first_of(result, "kafka_publication", window) == ("contents", f"EMPTY: {why}")

    filled = f"1 of 3 windows filled: {DAILY}"
    assert filled in logs(pipeline, result)
    assert metadata(result, "quotes", FIRST)["run"] == filled
    assert metadata(result, "mongo_price_history", FIRST)["run"].startswith("1 of 3 windows filled")
    assert metadata(result, "kafka_publication", FIRST)["run"].startswith("0 of 3 windows publish")


def test_of_a_single_window_that_is_filled_there_is_nothing_to_tell(pipeline: Pipeline) -> None:
    result = pipeline.run(LIVE_ON_TUESDAY)

    assert first_of(result, "quotes", LIVE_ON_TUESDAY) == ("contents", "1 quotes")
    assert first_of(result, "kafka_publication", LIVE_ON_TUESDAY) == ("contents", "1 events")
    assert all("run" not in metadata(result, asset) for asset in ASSETS)


def test_a_window_that_was_published_before_says_so(
    pipeline: Pipeline, set_clock: SetClock
) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    set_clock(datetime(2026, 11, 17, 19, 0, 5, tzinfo=UTC))
    result = pipeline.run(LIVE_ON_TUESDAY)

    told = metadata(result, "kafka_publication")
    assert (told["contents"], told["published"]) == ("1 events", 0)
    assert told["reason"] == "published by an earlier run"


def test_each_window_of_a_range_shows_its_own_prices(make_pipeline: Make) -> None:
    with make_pipeline(plan="pro") as pipeline:
        result = pipeline.run("2026-11-16T11:00-0300", "2026-11-16T12:00-0300")

        shown = {
            event.partition: metadata(result, "quotes", event.partition)["prices"]
            for event in result.asset_materializations_for_node("quotes")
        }
        stored = pipeline.store.reading().windows([*shown])
        assert len(shown) == 3
        for key, rows in shown.items():
            assert [row["price"] for row in rows] == [
                f"{quote.price:,.2f}" for quote in stored[key] or ()
            ]


def test_after_the_close_no_plan_has_a_bar_and_nothing_is_wrong(make_pipeline: Make) -> None:
    """Stocks close at 17:00 while New York has daylight saving time."""
    with make_pipeline(plan="pro", now=IN_THE_SUMMER_OF_NEW_YORK) as pipeline:
        history = bars(pipeline.sandbox, "PETR4", date(2026, 10, 5), "30m")
        until_16_30 = [bar for bar in history if bar["date"] <= history[13]["date"]]
        pipeline.sandbox.faults = [
            Fault(ticker="PETR4", fields={"historicalDataPrice": until_16_30})
        ]
        result = pipeline.run("2026-10-05T16:30-0300", "2026-10-05T17:30-0300")

        assert checks(result)["all_tickers_quoted"] == (
            True,
            "1 of 3 windows filled: there was no trade.",
        )
        pipeline.sandbox.faults = []
        (price,) = metadata(pipeline.run("2026-10-06T10:00-0300"), "quotes")["prices"]
        assert price["day"]  # since the close at 17:00


@pytest.mark.parametrize(
    ("number", "first", "empty", "last"),
    [
        (6, "12:30", "13:00", "13:30"),
        (14, "16:30", "17:00", "17:30"),  # from November on, stocks close at 18:00
    ],
)
def test_a_window_of_the_session_without_any_trade_is_named(
    make_pipeline: Make, number: int, first: str, empty: str, last: str
) -> None:
    with make_pipeline(plan="pro") as pipeline:
        history = bars(pipeline.sandbox, "PETR4", date(2026, 11, 16), "30m")
        kept = [bar for bar in history if bar["date"] != history[number]["date"]]
        pipeline.sandbox.faults = [Fault(ticker="PETR4", fields={"historicalDataPrice": kept})]
        result = pipeline.run(f"2026-11-16T{first}-0300", f"2026-11-16T{last}-0300")

        passed, why = checks(result)["all_tickers_quoted"]
        assert not passed
        assert why == (
            "2 of 3 windows filled: there was no trade. "
            f"Materialize again: 2026-11-16T{empty}-0300."
        )
