"""What a person sees first of a window: its movers, and a line for each instrument."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline
from market_data_pipeline_tests.observed import metadata

SetClock = Callable[[datetime], None]
HALF_AN_HOUR = timedelta(minutes=30)
NEXT = "2026-11-17T15:00-0300"
MONDAY = ("2026-11-16T10:00-0300", "2026-11-16T17:30-0300")
# The UI shows longer Markdown behind a link.
SHOWN_IN_PLACE = 1000


def movers(picture: str) -> list[tuple[str, str, str, str]]:
    """The rows of both tables of a picture: ticker, price, move, line."""
    rows = [line.strip("| ").split(" | ") for line in picture.splitlines() if line[:1] == "|"]
    return [
        (ticker, price, day, line)
        for ticker, price, day, line in (each for each in rows if len(each) == 4)
        if day[0] in "+-"
    ]


def moves(pipeline: Pipeline, key: str) -> dict[str, float]:
    """Since the previous close, in percent, by ticker, from the documents of a live window."""
    start = datetime.strptime(key, "%Y-%m-%dT%H:%M%z")
    found = pipeline.documents({"window_start": start})
    return {each["ticker"]: (each["price"] / each["previous_close"] - 1) * 100 for each in found}


def test_a_first_window_shows_what_moved_most_since_the_previous_close(pipeline: Pipeline) -> None:
    result = pipeline.run(LIVE_ON_TUESDAY)

    told = metadata(result, "quotes")
    assert list(told)[:2] == ["holds", "market"]
    picture = told["market"]
    assert len(picture) < SHOWN_IN_PLACE
    assert picture.startswith("**Tue 17 Nov 2026, 15:00**: ")
    ranked = sorted(moves(pipeline, LIVE_ON_TUESDAY).items(), key=lambda move: -move[1])
    shown = [ticker for ticker, *_ in movers(picture)]
    assert shown[:5] == [ticker for ticker, _ in ranked[:5]]
    assert shown[5:] == [ticker for ticker, _ in ranked[:-6:-1]]
    assert {line for *_, line in movers(picture)} == {"▁█", "█▁"}


def test_a_window_counts_who_rose_and_who_fell(pipeline: Pipeline) -> None:
    told = metadata(pipeline.run(LIVE_ON_TUESDAY), "quotes")

    changes = [round(each, 2) for each in moves(pipeline, LIVE_ON_TUESDAY).values()]
    up, down = sum(each > 0 for each in changes), sum(each < 0 for each in changes)
    assert (told["advancers"], told["decliners"]) == (up, down)
    assert f"{up} up, {down} down" in told["market"]
    assert told["coverage_percent"] == 100
    assert isinstance(told["median_change_percent"], float)
    for number in (each for each in told.values() if isinstance(each, float)):
        assert round(number, 2) == number


def test_the_prices_are_in_the_order_of_their_moves(pipeline: Pipeline) -> None:
    told = metadata(pipeline.run(LIVE_ON_TUESDAY), "quotes")

    ranked = sorted(moves(pipeline, LIVE_ON_TUESDAY).items(), key=lambda move: -move[1])
    assert [row["ticker"] for row in told["prices"]] == [ticker for ticker, _ in ranked]
    for row, (ticker, move) in zip(told["prices"], ranked, strict=True):
        (document,) = pipeline.documents({"ticker": ticker})
        local = document["updated_at"] - timedelta(hours=3)
        assert row["price"] == f"{document['price']:.2f}"
        assert row["day"] == f"{move:+.2f}%".replace("-0.00", "+0.00")
        assert row["time"] == f"{local:%H:%M:%S}"
    assert "decision" not in told["prices"][0]


def test_the_line_goes_on_with_each_window(pipeline: Pipeline, set_clock: SetClock) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)

    told = metadata(pipeline.run(NEXT), "quotes")

    assert {len(row["session"]) for row in told["prices"]} == {3}
    assert {len(line) for *_, line in movers(told["market"])} == {3}


def test_a_price_that_is_withheld_is_no_mover(pipeline: Pipeline, set_clock: SetClock) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    set_clock(TUESDAY_15_00 + HALF_AN_HOUR)
    (stored,) = pipeline.documents({"ticker": "VALE3"})
    cents = {"regularMarketPrice": stored["price"] * 100}
    pipeline.sandbox.faults = [Fault(ticker="VALE3", fields=cents)]

    told = metadata(pipeline.run(NEXT), "quotes")

    assert "VALE3" not in told["market"]
    assert "; 1 withheld." in told["market"]
    (row,) = (row for row in told["prices"] if row["ticker"] == "VALE3")
    assert row["decision"] == "withheld"
    assert row["session"].endswith("·")


def test_bars_are_compared_with_the_last_bar_of_the_session_before(
    make_pipeline: Callable[..., Any],
) -> None:
    with make_pipeline(plan="pro") as pipeline:
        pipeline.run(*MONDAY)
        result = pipeline.run("2026-11-17T10:00-0300", "2026-11-17T11:00-0300")

        closes = {each["ticker"]: each["price"] for each in pipeline.documents() if _monday(each)}
        at_11_30 = metadata(result, "quotes", "2026-11-17T11:00-0300")
        assert len(at_11_30["prices"]) > 40
        for row in at_11_30["prices"]:
            move = (float(row["price"]) / closes[row["ticker"]] - 1) * 100
            assert float(row["day"].strip("%")) == pytest.approx(move, abs=0.006)
        assert "prices" in metadata(result, "quotes", "2026-11-17T10:00-0300")
        assert "market" in metadata(result, "quotes", "2026-11-17T10:00-0300")


def _monday(document: dict[str, Any]) -> bool:
    return bool(document["window_start"].day == 16)


def test_a_session_that_is_not_stored_to_its_end_has_no_close(
    make_pipeline: Callable[..., Any],
) -> None:
    with make_pipeline(plan="pro") as pipeline:
        pipeline.run(MONDAY[0], "2026-11-16T12:00-0300")

        told = metadata(pipeline.run("2026-11-17T10:00-0300"), "quotes")

        assert "no previous close is known" in told["market"]
        assert "advancers" not in told
        assert "day" not in told["prices"][0]


def test_a_made_up_close_says_nothing_of_real_prices(make_pipeline: Callable[..., Any]) -> None:
    with make_pipeline(plan="pro") as pipeline:
        pipeline.run(*MONDAY)
        keys = [path.name.removesuffix(".parquet") for path in pipeline.store.folder.iterdir()]
        moment = timedelta(seconds=1)
        real = [
            replace(each, origin="brapi.dev", observed_at=each.observed_at + moment)
            for each in pipeline.store.load(keys)
        ]
        pipeline.store.save(real, keys)

        told = metadata(pipeline.run("2026-11-17T10:00-0300"), "quotes")

        assert "no previous close is known" in told["market"]


def test_a_gap_is_told_with_what_it_means(make_pipeline: Callable[..., Any]) -> None:
    with make_pipeline() as pipeline:
        told = metadata(pipeline.run("2026-11-16T16:30-0300"), "quotes")

        assert told["without_row"] == "plan: the free plan has daily bars only"
        assert told["coverage_percent"] == 0
        assert "market" not in told
