"""From the bars that Brapi answers with to quotes: odd bars, odd intervals, what is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import chain, pairwise
from typing import Any

import pytest
from brapi_sandbox.faults import Fault
from brapi_sandbox.sandbox import Sandbox, serve

from market_data_pipeline.brapi.errors import PlanError
from market_data_pipeline.brapi.observe import Observation, observe_history
from market_data_pipeline.market import clock
from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.market.windows import TradingWindows, Window
from market_data_pipeline_tests.conftest import TUESDAY_15_00, SetClock, brapi_with
from market_data_pipeline_tests.history.truth import (
    bars,
    filed,
    traded_in,
    traded_on,
    truth,
    windows_between,
)

WINDOWS = TradingWindows()
TICKERS = load_watchlist().tickers
MONDAY = date(2026, 11, 16)
MONDAYS = WINDOWS.of_session(MONDAY)


class Brapi:
    """The sandbox, and the collection of history from it."""

    def __init__(self, sandbox: Sandbox, **settings: Any) -> None:
        self.sandbox = sandbox
        self._resource = brapi_with(
            **{
                "base_url": sandbox.url,
                "token": "token",
                "plan": sandbox.plan,
                "min_interval_seconds": 0.001,
                **settings,
            }
        )

    def history(
        self,
        windows: Sequence[Window],
        tickers: tuple[str, ...] = TICKERS[:4],
        trading_windows: TradingWindows = WINDOWS,
    ) -> Observation:
        with self._resource.client() as client:
            now = clock.utc_now()
            return observe_history(client, tickers, windows, trading_windows, now)

    def truth(
        self, windows: Sequence[Window], tickers: tuple[str, ...] = TICKERS[:4]
    ) -> dict[Any, float]:
        return truth(self.sandbox.market, tickers, windows)


@pytest.fixture
def make_brapi(set_clock: SetClock) -> Callable[..., Any]:
    @contextmanager
    def make(plan: str = "pro", now: datetime = TUESDAY_15_00, **settings: Any) -> Iterator[Brapi]:
        set_clock(now)
        with serve(plan=plan, burst=1_000, now=lambda: clock.utc_now()) as sandbox:
            yield Brapi(sandbox, **settings)

    return make


@pytest.fixture
def brapi(make_brapi: Callable[..., Any]) -> Iterator[Brapi]:
    with make_brapi() as brapi:
        yield brapi


def gaps_of(collection: Observation, ticker: str) -> dict[Window, str]:
    return {w: gaps[ticker] for w, gaps in collection.missing.items() if ticker in gaps}


def answered_with(ticker: str, history: list[dict[str, Any]]) -> list[Fault]:
    return [Fault(ticker=ticker, fields={"historicalDataPrice": history})]


# What is asked


def test_three_months_of_all_windows_on_the_free_plan_are_one_request_a_ticker(
    make_brapi: Callable[..., Any],
) -> None:
    windows = windows_between(WINDOWS, "2026-08-17T10:00-0300", "2026-11-17T14:00-0300")
    with make_brapi("free") as brapi:
        collection = brapi.history(windows, TICKERS)

        assert len(windows) > 1_000
        assert len(brapi.sandbox.requests) == 50
        assert brapi.sandbox.requests[0].query == {"interval": "1d", "range": "3mo"}
        closing = [one for one, following in pairwise(windows) if one.day != following.day]
        expected = truth(brapi.sandbox.market, TICKERS, closing, traded_on)
        assert filed(collection.quotes) == expected
        assert len(expected) == len(TICKERS) * len(closing)


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
        ("free", "2026-09-01T17:30", "2026-09-01T17:30", {"range": "3mo"}),
    ],
)
def test_the_plan_is_asked_for_the_days_of_the_range_or_the_smallest_one(
    make_brapi: Callable[..., Any], plan: str, first: str, last: str, asked: dict[str, str]
) -> None:
    with make_brapi(plan) as brapi:
        collection = brapi.history(windows_between(WINDOWS, f"{first}-0300", f"{last}-0300"))

        assert {quote.requested_ticker for quote in collection.quotes} == {*TICKERS[:4]}
        interval = {"interval": "30m" if plan == "pro" else "1d"}
        queries = [seen.query for seen in brapi.sandbox.requests]
        assert queries == [interval | asked] * (1 if plan == "pro" else 4)


@pytest.mark.parametrize(
    ("plan", "settings", "first", "told"),
    [
        ("startup", {}, date(2025, 11, 14), "plan 'startup' reaches back 1y, to 2025-11-17"),
        (
            "pro",
            {"longest_range": "6mo"},
            date(2026, 5, 15),
            "plan 'pro' reaches back 6mo, to 2026-05-17",
        ),
    ],
)
def test_what_the_plan_would_reject_is_refused_before_it_is_asked(
    make_brapi: Callable[..., Any], plan: str, settings: dict[str, Any], first: date, told: str
) -> None:
    windows = TradingWindows(first_day=date(2025, 10, 1))
    with make_brapi(plan, **settings) as brapi:
        with pytest.raises(PlanError, match=f"{told}.*No request was sent"):
            brapi.history([windows.of_session(first)[-1]], trading_windows=windows)

        assert brapi.sandbox.requests == []


@pytest.mark.parametrize(
    ("plan", "today", "answered", "refused"),
    [
        ("free", datetime(2026, 5, 31), date(2026, 3, 2), date(2026, 2, 27)),
        ("free", datetime(2026, 1, 5), date(2025, 10, 6), date(2025, 10, 3)),
        ("startup", datetime(2026, 5, 31), date(2025, 6, 2), date(2025, 5, 30)),
    ],
)
def test_at_the_end_of_a_month_or_year_the_client_and_the_plan_agree_how_far_back_it_goes(
    make_brapi: Callable[..., Any], plan: str, today: datetime, answered: date, refused: date
) -> None:
    windows = TradingWindows(first_day=date(2025, 5, 1))
    with make_brapi(plan, today.replace(hour=15, tzinfo=UTC)) as brapi:
        collection = brapi.history(windows.of_session(answered), trading_windows=windows)
        assert collection.quotes
        assert collection.failures == {}
        with pytest.raises(PlanError):
            brapi.history(windows.of_session(refused), trading_windows=windows)


# Which bar serves which window


@pytest.mark.parametrize(
    ("minutes", "interval"), [(5, "5m"), (10, "5m"), (15, "15m"), (20, "5m"), (60, "60m")]
)
@pytest.mark.parametrize("day", [date(2026, 11, 16), date(2026, 2, 18)], ids=["16", "late opening"])
def test_windows_of_another_length(brapi: Brapi, minutes: int, interval: str, day: date) -> None:
    windows = TradingWindows(minutes)
    session = windows.of_session(day)
    collection = brapi.history(session, trading_windows=windows)

    assert {seen.query["interval"] for seen in brapi.sandbox.requests} == {interval}
    assert filed(collection.quotes) == brapi.truth(session)


def test_windows_of_five_minutes_whose_bars_may_be_incomplete_have_no_row(
    make_brapi: Callable[..., Any],
) -> None:
    windows = TradingWindows(5)
    # Bars of this plan come up to 15 minutes late.
    with make_brapi("startup", datetime(2026, 11, 17, 18, 13, tzinfo=UTC)) as brapi:
        session = [
            window
            for window in windows.of_session(date(2026, 11, 17))
            if window.end <= datetime(2026, 11, 17, 18, 5, tzinfo=UTC)
        ]
        collection = brapi.history(session, trading_windows=windows)

        settled = session[:-2]  # up to 14:55: those after ended less than 15 minutes ago
        assert filed(collection.quotes) == brapi.truth(settled)
        assert gaps_of(collection, "PETR4") == dict.fromkeys(session[-2:], "too early")


def test_a_bar_with_nulls_fills_no_window(brapi: Brapi) -> None:
    history = bars(brapi.sandbox, "PETR4", MONDAY, "30m")
    history[3] |= dict.fromkeys(("open", "high", "low", "close", "volume", "adjustedClose"))
    history[4]["volume"] = None
    brapi.sandbox.faults = answered_with("PETR4", history)

    collection = brapi.history(MONDAYS, ("PETR4",))

    prices = brapi.truth(MONDAYS, ("PETR4",))
    del prices["PETR4", MONDAYS[3]]
    assert filed(collection.quotes) == prices
    assert gaps_of(collection, "PETR4") == {MONDAYS[3]: "no trade"}
    volumes = {quote.window: quote.bar_volume for quote in collection.quotes}
    assert [window for window in volumes if volumes[window] is None] == [MONDAYS[4]]


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
    make_brapi: Callable[..., Any], plan: str, change: Change, lost: dict[int, str]
) -> None:
    with make_brapi(plan) as brapi:
        windows = MONDAYS if plan == "pro" else MONDAYS[-1:]
        days, interval = ((16,), "30m") if plan == "pro" else ((13, 16, 17), "1d")
        of_days = (bars(brapi.sandbox, "PETR4", date(2026, 11, day), interval) for day in days)
        brapi.sandbox.faults = answered_with("PETR4", change([*chain(*of_days)]))

        collection = brapi.history(windows, ("PETR4",))

        traded = traded_in if plan == "pro" else traded_on
        prices = truth(brapi.sandbox.market, ("PETR4",), windows, traded)
        for number in lost:
            del prices["PETR4", windows[number]]
        assert filed(collection.quotes) == prices
        assert gaps_of(collection, "PETR4") == {windows[n]: gap for n, gap in lost.items()}


def test_a_renamed_instrument_is_filed_under_its_new_symbol(brapi: Brapi) -> None:
    collection = brapi.history(MONDAYS, ("BBAS3", "ELET3"))

    assert filed(collection.quotes) == brapi.truth(MONDAYS, ("BBAS3", "AXIA3"))
    assert collection.answered_as == {"ELET3": "AXIA3"}
    assert {quote.requested_ticker for quote in collection.quotes} == {"BBAS3", "ELET3"}


def test_the_price_is_what_was_traded_not_what_dividends_made_of_it(
    make_brapi: Callable[..., Any],
) -> None:
    with make_brapi("free") as brapi:
        october = WINDOWS.of_session(date(2026, 10, 1))[-1]
        [bar] = bars(brapi.sandbox, "HGLG11", october.day, "1d")
        assert bar["adjustedClose"] != bar["close"]

        collection = brapi.history([october], ("HGLG11",))
        assert filed(collection.quotes) == {("HGLG11", october): bar["close"]}


def test_bars_of_which_none_can_be_used_are_a_failure(make_brapi: Callable[..., Any]) -> None:
    with make_brapi("free") as brapi:
        ticker, other = TICKERS[:2]
        (bar,) = bars(brapi.sandbox, ticker, MONDAY, "1d")
        for change in ({"date": bar["date"] * 1000}, {"date": "2026-11-16"}, {"close": "35,50"}):
            brapi.sandbox.faults = answered_with(ticker, [bar | change])

            collection = brapi.history(MONDAYS[-1:], (ticker, other))

            assert collection.failures[ticker].startswith("unusable bar {'date': ")
            assert [quote.ticker for quote in collection.quotes] == [other]
