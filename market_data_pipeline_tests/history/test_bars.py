"""From the bars that Brapi answers with to quotes: odd bars, odd intervals, what is asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from itertools import chain
from typing import Any

import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.brapi.errors import RunError
from market_data_pipeline.market.windows import TradingWindows
from market_data_pipeline_tests.conftest import INSTRUMENTS, Pipeline, SetClock, at
from market_data_pipeline_tests.history.conftest import (
    MONDAY,
    MONDAYS,
    WINDOWS,
    gaps_of,
    observe,
)
from market_data_pipeline_tests.history.truth import (
    bars,
    filed,
    traded_in,
    traded_on,
    truth,
    windows_between,
)


def answered_with(ticker: str, history: list[dict[str, Any]]) -> list[Fault]:
    return [Fault(ticker=ticker, fields={"historicalDataPrice": history})]


# What is asked


@pytest.mark.parametrize(
    ("plan", "first", "last", "asked"),
    [
        # Until today there is no end.
        ("pro", "2026-11-13T10:00", "2026-11-17T10:00", {"startDate": "2026-11-13"}),
        (
            "pro",
            "2026-11-13T10:00",
            "2026-11-16T10:00",
            {"startDate": "2026-11-13", "endDate": "2026-11-17"},
        ),
        ("free", "2026-11-16T17:30", "2026-11-16T17:30", {"range": "5d"}),
        ("free", "2026-11-13T17:30", "2026-11-13T17:30", {"range": "5d"}),
        ("free", "2026-11-11T17:30", "2026-11-11T17:30", {"range": "1mo"}),
        # More than a thousand windows. Since then HGLG11 has paid dividends, for which Brapi has
        # adjusted closes: the price is what was traded.
        ("free", "2026-08-17T10:00", "2026-11-17T14:00", {"range": "3mo"}),
    ],
)
def test_the_plan_is_asked_once_for_the_days_of_the_range_or_the_smallest_one(
    pipeline: Pipeline, plan: str, first: str, last: str, asked: dict[str, str]
) -> None:
    pipeline.sandbox.plan = plan
    windows = windows_between(WINDOWS, f"{first}-0300", f"{last}-0300")
    served, traded, interval = windows, traded_in, "30m"
    if plan == "free":
        served, traded, interval = [*filter(WINDOWS.is_last, windows)], traded_on, "1d"

    observation = observe(pipeline, windows)

    queries = [seen.query for seen in pipeline.sandbox.requests]
    assert queries == [{"interval": interval} | asked] * (1 if plan == "pro" else 4)
    expected = truth(pipeline.sandbox.market, INSTRUMENTS, served, traded)
    assert filed(observation.quotes) == expected


@pytest.mark.parametrize(
    ("plan", "settings", "today", "told", "answered", "refused"),
    [
        ("free", {}, "2026-11-17", "3mo, to 2026-08-17", "2026-08-17", "2026-08-14"),
        ("free", {}, "2026-05-31", "3mo, to 2026-02-28", "2026-03-02", "2026-02-27"),
        ("free", {}, "2026-01-05", "3mo, to 2025-10-05", "2025-10-06", "2025-10-03"),
        ("startup", {}, "2026-11-17", "1y, to 2025-11-17", "2025-11-17", "2025-11-14"),
        ("startup", {}, "2026-05-31", "1y, to 2025-05-31", "2025-06-02", "2025-05-30"),
        (
            "pro",
            {"longest_range": "6mo"},
            "2026-11-17",
            "6mo, to 2026-05-17",
            "2026-05-18",
            "2026-05-15",
        ),
    ],
)
def test_what_the_plan_would_reject_is_refused_before_it_is_asked_and_nothing_else(
    pipeline: Pipeline,
    set_clock: SetClock,
    plan: str,
    settings: dict[str, Any],
    today: str,
    told: str,
    answered: str,
    refused: str,
) -> None:
    windows = TradingWindows(first_day=date(2025, 5, 1))
    set_clock(at(f"{today}T12:00"))
    pipeline.sandbox.plan, pipeline.brapi = plan, settings

    session = windows.of_session(date.fromisoformat(answered))
    observation = observe(pipeline, session, trading_windows=windows)

    assert observation.quotes
    assert observation.failures == {}
    asked = len(pipeline.sandbox.requests)
    session = windows.of_session(date.fromisoformat(refused))
    with pytest.raises(RunError, match=f"'{plan}' reaches back {told};.*No request was sent"):
        observe(pipeline, session, trading_windows=windows)
    assert len(pipeline.sandbox.requests) == asked


# Which bar serves which window


@pytest.mark.parametrize(
    ("minutes", "interval"), [(5, "5m"), (10, "5m"), (15, "15m"), (20, "5m"), (60, "60m")]
)
@pytest.mark.parametrize("day", [date(2026, 11, 16), date(2026, 2, 18)], ids=["16", "late opening"])
def test_windows_of_another_length(pro: Pipeline, minutes: int, interval: str, day: date) -> None:
    windows = TradingWindows(minutes)
    session = windows.of_session(day)

    observation = observe(pro, session, trading_windows=windows)

    assert {seen.query["interval"] for seen in pro.sandbox.requests} == {interval}
    assert filed(observation.quotes) == truth(pro.sandbox.market, INSTRUMENTS, session)


def test_windows_of_five_minutes_whose_bars_may_be_incomplete_have_no_row(
    pipeline: Pipeline, set_clock: SetClock
) -> None:
    windows = TradingWindows(5)
    pipeline.sandbox.plan = "startup"  # bars of this plan come up to 15 minutes late
    set_clock(at("2026-11-17T15:13"))
    of_day = windows.of_session(date(2026, 11, 17))
    session = [window for window in of_day if window.end <= at("2026-11-17T15:05")]

    observation = observe(pipeline, session, trading_windows=windows)

    settled = session[:-2]  # up to 14:55: those after ended less than 15 minutes ago
    assert filed(observation.quotes) == truth(pipeline.sandbox.market, INSTRUMENTS, settled)
    assert gaps_of(observation, "PETR4") == dict.fromkeys(session[-2:], "too early")


def test_an_odd_bar_costs_itself(pro: Pipeline) -> None:
    history = bars(pro.sandbox, "PETR4", MONDAY, "30m")
    history[3] |= dict.fromkeys(("open", "high", "low", "close", "volume", "adjustedClose"))
    history[4]["volume"] = None
    history[5]["volume"] = 2**60
    history.append({**history[0], "date": "0001-01-01T00:00:00Z"})
    pro.sandbox.faults = answered_with("PETR4", history)

    observation = observe(pro, MONDAYS, ("PETR4",))

    prices = truth(pro.sandbox.market, ("PETR4",), MONDAYS)
    del prices["PETR4", MONDAYS[3]]
    assert filed(observation.quotes) == prices
    assert gaps_of(observation, "PETR4") == {MONDAYS[3]: "no trade"}
    volumes = {quote.window: quote.bar_volume for quote in observation.quotes}
    assert [window for window in volumes if volumes[window] is None] == [*MONDAYS[4:6]]


Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def moved(number: int, seconds: int) -> Change:
    """One bar starts so much later."""
    return lambda bars: [
        bar | {"date": bar["date"] + seconds * (n == number)} for n, bar in enumerate(bars)
    ]


def again(number: int, close: float | None, seconds: int = 0) -> Change:
    """One bar comes a second time, with another close."""
    return lambda bars: [
        *bars,
        *bars,
        bars[number] | {"date": bars[number]["date"] + seconds, "close": close},
    ]


def dated(hour: int) -> Change:
    """Each bar starts at an hour of its day (UTC)."""
    return lambda bars: [
        bar | {"date": bar["date"] // 86_400 * 86_400 + hour * 3_600} for bar in bars
    ]


@pytest.mark.parametrize(
    ("plan", "change", "lost"),
    [
        # A minute early it begins in the window before, which has a bar of its own.
        ("pro", moved(5, -60), {5: "no trade"}),
        ("pro", moved(5, 60), {5: "off the grid"}),
        ("pro", moved(5, 15 * 60), {5: "off the grid"}),
        ("pro", again(15, 1.0), {15: "other interval"}),
        ("free", again(1, 1.0), {0: "other interval"}),
        ("free", again(1, None), {}),
        ("free", again(1, None, 60), {}),
        ("free", dated(0), {}),  # midnight UTC
        ("free", dated(3), {}),  # midnight here
        ("free", dated(13), {}),  # the opening
    ],
)
def test_what_is_off_the_grid_or_contradicts_is_no_price(
    pipeline: Pipeline, plan: str, change: Change, lost: dict[int, str]
) -> None:
    sandbox = pipeline.sandbox
    sandbox.plan = plan
    windows, days, interval, traded = MONDAYS, [16], "30m", traded_in
    if plan == "free":
        windows, days, interval, traded = MONDAYS[-1:], [13, 16, 17], "1d", traded_on
    of_days = (bars(sandbox, "PETR4", date(2026, 11, day), interval) for day in days)
    sandbox.faults = answered_with("PETR4", change([*chain(*of_days)]))

    observation = observe(pipeline, windows, ("PETR4",))

    prices = truth(sandbox.market, ("PETR4",), windows, traded)
    for number in lost:
        del prices["PETR4", windows[number]]
    assert filed(observation.quotes) == prices
    assert gaps_of(observation, "PETR4") == {windows[n]: gap for n, gap in lost.items()}


def test_a_renamed_instrument_is_filed_under_its_new_symbol(pro: Pipeline) -> None:
    observation = observe(pro, MONDAYS, ("BBAS3", "ELET3"))

    expected = truth(pro.sandbox.market, ("BBAS3", "AXIA3"), MONDAYS)
    assert filed(observation.quotes) == expected
    symbols = {quote.symbols for quote in observation.quotes}
    assert symbols == {("BBAS3", "BBAS3"), ("ELET3", "AXIA3")}


def test_bars_of_which_none_can_be_used_are_a_failure(pipeline: Pipeline) -> None:
    ticker, other = INSTRUMENTS[:2]
    (bar,) = bars(pipeline.sandbox, ticker, MONDAY, "1d")
    for change in ({"date": bar["date"] * 1000}, {"date": "2026-11-16"}, {"close": "35,50"}):
        pipeline.sandbox.faults = answered_with(ticker, [bar | change])

        observation = observe(pipeline, MONDAYS[-1:], (ticker, other))

        assert observation.failures[ticker].startswith("unusable bar {'date': ")
        assert [quote.ticker for quote in observation.quotes] == [other]
