"""The made-up market: the prices of one moment agree however they are asked for."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from brapi_sandbox.answers import history, quote
from brapi_sandbox.market import SAO_PAULO, Market

MARKET = Market()
# Thursday under New York's standard time, and a Thursday under its daylight saving time.
WINTER, SUMMER = date(2026, 11, 19), date(2026, 10, 8)
INSTRUMENTS = ("PETR4", "HGLG11", "GOLD11", "DIVO11")


def at(day: date, hour: int, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=SAO_PAULO).astimezone(UTC)


def traded_at(result: dict[str, object]) -> datetime:
    return datetime.fromisoformat(str(result["regularMarketTime"]))


@pytest.mark.parametrize("ticker", INSTRUMENTS)
@pytest.mark.parametrize("day", [WINTER, SUMMER])
def test_a_bar_closes_at_the_price_that_was_quoted_at_its_end(ticker: str, day: date) -> None:
    after = at(day, 23)
    bars = {bar["date"]: bar for bar in history(MARKET, ticker, after, (day, day), "30m")}
    start, volume = at(day, 10), 0
    while start < at(day, 18):
        end = start + timedelta(minutes=30)
        bar = bars.pop(int(start.timestamp()), None)
        live = quote(MARKET, ticker, end)
        assert traded_at(live) < end
        if bar is None:
            assert not start <= traded_at(live) < end
        else:
            assert live["regularMarketPrice"] == bar["close"]
            assert start <= traded_at(live)
            volume += bar["volume"]
            assert live["regularMarketVolume"] == volume
        start = end
    assert not bars
    [daily] = history(MARKET, ticker, after, (day, day), "1d")
    assert daily["close"] == quote(MARKET, ticker, after)["regularMarketPrice"]
    assert daily["volume"] == volume


def test_an_illiquid_instrument_has_windows_without_a_trade() -> None:
    bars = history(MARKET, "DIVO11", at(WINTER, 23), (WINTER - timedelta(days=30), WINTER), "30m")
    sessions = {datetime.fromtimestamp(bar["date"], UTC).date() for bar in bars}
    assert 0 < len(bars) < 16 * len(sessions)


@pytest.mark.parametrize(
    ("day", "first", "last"),
    [
        (WINTER, (10, 0), (17, 30)),
        (SUMMER, (10, 0), (16, 30)),
        (date(2026, 2, 18), (13, 0), (17, 30)),  # Ash Wednesday
    ],
)
def test_it_trades_when_b3_does(day: date, first: tuple[int, int], last: tuple[int, int]) -> None:
    bars = history(MARKET, "PETR4", at(day, 23), (day, day), "30m")
    assert bars[0]["date"] == int(at(day, *first).timestamp())
    assert bars[-1]["date"] == int(at(day, *last).timestamp())


@pytest.mark.parametrize("closed", [date(2026, 11, 20), date(2026, 11, 22), date(2026, 12, 25)])
def test_there_is_no_session_on_a_holiday(closed: date) -> None:
    assert history(MARKET, "PETR4", at(closed, 23), (closed, closed), "1d") == []
    assert traded_at(quote(MARKET, "PETR4", at(closed, 15))).date() < closed


def test_a_bar_under_way_holds_what_was_traded_so_far() -> None:
    bars = history(MARKET, "PETR4", at(WINTER, 10, 40), (WINTER, WINTER), "30m")
    assert [bar["date"] for bar in bars] == [
        int(at(WINTER, 10).timestamp()),
        int(at(WINTER, 10, 30).timestamp()),
    ]
    assert bars[-1]["close"] == quote(MARKET, "PETR4", at(WINTER, 10, 40))["regularMarketPrice"]


@pytest.mark.parametrize(
    ("interval", "count"),
    [
        ("1m", 475),
        ("2m", 238),
        ("5m", 95),
        ("15m", 32),
        ("30m", 16),
        ("60m", 8),
        ("1h", 8),
        ("90m", 6),
        ("1d", 1),
    ],
)
def test_intervals_cut_a_session(interval: str, count: int) -> None:
    bars = history(MARKET, "PETR4", at(WINTER, 23), (WINTER, WINTER), interval)
    assert len(bars) == count
    assert sum(bar["volume"] for bar in bars) == 39_606_400


@pytest.mark.parametrize(("interval", "count"), [("5d", 13), ("1wk", 14), ("1mo", 3), ("3mo", 1)])
def test_intervals_gather_sessions(interval: str, count: int) -> None:
    days = (date(2026, 7, 1), date(2026, 9, 30))
    bars = history(MARKET, "PETR4", at(WINTER, 23), days, interval)
    daily = history(MARKET, "PETR4", at(WINTER, 23), days, "1d")
    assert len(bars) == count
    assert bars[0]["open"] == daily[0]["open"]
    assert bars[-1]["close"] == daily[-1]["close"]
    assert max(bar["high"] for bar in bars) == max(bar["high"] for bar in daily)


def test_the_adjusted_close_differs_before_a_dividend_only() -> None:
    days = (date(2026, 11, 9), WINTER)
    bars = history(MARKET, "HGLG11", at(WINTER, 23), days, "1d")
    before = [bar for bar in bars if bar["date"] < at(date(2026, 11, 15), 0).timestamp()]
    assert before
    assert all(bar["adjustedClose"] < bar["close"] for bar in before)
    assert all(bar["adjustedClose"] == bar["close"] for bar in bars[len(before) :])


def test_every_instrument_is_quoted_in_order() -> None:
    assert len(MARKET.instruments) > 50
    for ticker, instrument in MARKET.instruments.items():
        result = quote(MARKET, ticker, at(WINTER, 23))
        assert len(instrument.long_name) > 5
        assert result["regularMarketDayLow"] <= result["regularMarketPrice"]
        assert result["regularMarketPrice"] <= result["regularMarketDayHigh"]
        assert result["fiftyTwoWeekLow"] <= result["regularMarketDayLow"]
        assert result["regularMarketDayHigh"] <= result["fiftyTwoWeekHigh"]
        assert 1 < result["regularMarketPrice"] < 1_000


def test_another_process_would_say_the_same() -> None:
    result = quote(Market(["WXYZ3"]), "WXYZ3", at(WINTER, 12))
    assert (result["regularMarketPrice"], result["longName"]) == (84.57, "Wxyz S.A.")
