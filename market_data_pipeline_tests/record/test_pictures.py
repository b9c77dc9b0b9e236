"""What a person sees first of a window: its movers, and a line for each instrument."""

from dataclasses import replace
from datetime import timedelta

import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, ChangeSettings, Pipeline
from market_data_pipeline_tests.observed import metadata
from market_data_pipeline_tests.record.helpers import SECOND, VICTIM, times

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


def test_a_first_window_shows_what_moved_most_since_the_previous_close(pipeline: Pipeline) -> None:
    told = metadata(pipeline.run(LIVE_ON_TUESDAY), "quotes")

    documents = {each["ticker"]: each for each in pipeline.documents()}
    moves = {
        ticker: (each["price"] / each["previous_close"] - 1) * 100
        for ticker, each in documents.items()
    }
    ranked = sorted(moves, key=lambda ticker: -moves[ticker])
    up, down = (sum(sign * round(each, 2) > 0 for each in moves.values()) for sign in (1, -1))
    assert list(told)[:2] == ["contents", "market"]
    picture = told["market"]
    assert len(picture) < SHOWN_IN_PLACE
    assert picture.startswith("**Tue 17 Nov 2026, 15:00**: ")
    assert f"{up} up, {down} down" in picture
    assert [ticker for ticker, *_ in movers(picture)] == ranked[:5] + ranked[:-6:-1]
    assert {line for *_, line in movers(picture)} == {"▁█", "█▁"}
    assert (told["advancers"], told["decliners"]) == (up, down)
    assert told["coverage_percent"] == 100
    assert isinstance(told["median_change_percent"], float)
    for number in (each for each in told.values() if isinstance(each, float)):
        assert round(number, 2) == number
    for row, ticker in zip(told["prices"], ranked, strict=True):
        local = documents[ticker]["updated_at"] - timedelta(hours=3)
        assert row["ticker"] == ticker
        assert row["price"] == f"{documents[ticker]['price']:.2f}"
        assert row["day"] == f"{moves[ticker]:+.2f}%".replace("-0.00", "+0.00")
        assert row["time"] == f"{local:%H:%M:%S}"
    assert "decision" not in told["prices"][0]


def test_what_rounds_to_nothing_is_no_move_and_a_volume_takes_the_larger_unit(
    pipeline: Pipeline,
) -> None:
    price = {"regularMarketPrice": 100.004, "regularMarketPreviousClose": 100.0}
    pipeline.sandbox.faults = [Fault(fields=price | {"regularMarketVolume": 999_960})]

    told = metadata(pipeline.run(LIVE_ON_TUESDAY), "quotes")

    assert "0 up, 0 down, 50 unchanged" in told["market"]
    assert [*movers(told["market"])] == []
    assert {row["volume"] for row in told["prices"]} == {"1.0\N{NO-BREAK SPACE}M"}


def test_the_line_goes_on_with_each_window_and_a_withheld_price_is_no_mover(
    stored: Pipeline,
) -> None:
    stored.sandbox.faults = [times(stored, 100)]

    told = metadata(stored.run(SECOND), "quotes")

    assert {len(row["session"]) for row in told["prices"]} == {3}
    assert {len(line) for *_, line in movers(told["market"])} == {3}
    assert VICTIM not in told["market"]
    assert "; 1 withheld." in told["market"]
    (row,) = (row for row in told["prices"] if row["ticker"] == VICTIM)
    assert row["decision"] == "withheld"
    assert row["session"].endswith("·")


@pytest.mark.usefixtures("four_instruments")
def test_bars_are_compared_with_the_session_before_if_it_has_its_end_and_is_not_made_up(
    pro: Pipeline, change_settings: ChangeSettings
) -> None:
    pro.run(MONDAY[0], "2026-11-16T12:00-0300")
    without_its_end = metadata(pro.run("2026-11-17T10:00-0300"), "quotes")
    pro.run(*MONDAY)
    closes = {each.ticker: each.price for each in pro.store.load([MONDAY[1]])}
    change_settings(PARTITIONS_START="2026-11-17")
    first, last = "2026-11-17T10:30-0300", "2026-11-17T11:30-0300"

    result = pro.run(first, last)

    at_12 = metadata(result, "quotes", last)["prices"]
    assert len(at_12) == 4
    for row in at_12:
        move = (float(row["price"]) / closes[row["ticker"]] - 1) * 100
        assert float(row["day"].strip("%")) == pytest.approx(move, abs=0.006)
    assert {"prices", "market"} < metadata(result, "quotes", first).keys()

    folder = pro.store.folder
    keys = [path.name.removesuffix(".parquet") for path in folder.glob("2026-11-16*")]
    moment = timedelta(seconds=1)
    real = [
        replace(each, origin="brapi.dev", observed_at=each.observed_at + moment)
        for each in pro.store.load(keys)
    ]
    pro.store.save(real, keys)
    made_up = metadata(pro.run("2026-11-17T12:00-0300"), "quotes")
    for told in (without_its_end, made_up):
        assert "no previous close is known" in told["market"]
        assert "advancers" not in told
        assert "day" not in told["prices"][0]
