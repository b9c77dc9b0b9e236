"""What the sandbox answers about one instrument: its quote, and the bars of its price history."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from datetime import UTC, date, datetime
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from brapi_sandbox.market import Market, Session, Trades

MINUTES = {
    "1m": 1,
    "2m": 2,
    "5m": 5,
    "15m": 15,
    "30m": 30,
    "60m": 60,
    "1h": 60,
    "90m": 90,
}
SESSIONS_A_YEAR = 252
DIVIDEND = 0.01


def quote(market: Market, ticker: str, as_of: datetime) -> dict[str, Any]:
    """The quote of a known instrument as the market stood at `as_of`, in the API's fields.

    Prices are in BRL, `regularMarketVolume` is the session's volume so far, in shares.
    """
    instrument = market.instruments[ticker]
    trades, before = market.last_trades(ticker, as_of)
    price, previous = float(trades.prices[-1]), float(before.prices[-1])
    low, high = float(np.min(trades.prices)), float(np.max(trades.prices))
    year_low, year_high = _year(market, ticker, as_of, low, high)
    earnings = None if instrument.is_fund else round(instrument.price / 9, 2)
    return {
        "symbol": ticker,
        "currency": "BRL",
        "shortName": instrument.short_name,
        "longName": instrument.long_name,
        "regularMarketPrice": price,
        "regularMarketVolume": int(trades.volumes.sum()),
        "regularMarketTime": stamp(datetime.fromtimestamp(int(trades.seconds[-1]), UTC)),
        "regularMarketChange": round(price - previous, 2),
        "regularMarketChangePercent": round(100 * (price / previous - 1), 3),
        "regularMarketOpen": float(trades.prices[0]),
        "regularMarketDayHigh": high,
        "regularMarketDayLow": low,
        "regularMarketPreviousClose": previous,
        "regularMarketDayRange": f"{low} - {high}",
        "fiftyTwoWeekLow": year_low,
        "fiftyTwoWeekHigh": year_high,
        "fiftyTwoWeekRange": f"{year_low} - {year_high}",
        "marketCap": int(price * instrument.daily_volume * 400),
        "priceEarnings": None if earnings is None else round(price / earnings, 2),
        "earningsPerShare": earnings,
        "logourl": f"https://icons.brapi.dev/icons/{ticker}.svg",
    }


def history(
    market: Market, ticker: str, as_of: datetime, days: tuple[date, date], interval: str
) -> list[dict[str, Any]]:
    """The bars of the sessions from the first to the last of `days`, up to `as_of`.

    A bar `[s, e)` is dated `s` and closes at the last trade before `e`; where nothing was traded
    there is no bar.
    """
    sessions = [
        market.trades(ticker, number).before(as_of)
        for number in range(market.sessions_before(as_of))
        if days[0] <= market.sessions[number].day <= days[1]
    ]
    parts = _intraday(sessions, MINUTES[interval]) if interval in MINUTES else sessions
    grouped = groupby(enumerate(parts), lambda item: _period(item, interval))
    groups = ([part for _, part in group] for _, group in grouped)
    today = as_of.date()
    return [_bar(market, ticker, group, today) for group in groups if any(map(len, group))]


def stamp(instant: datetime) -> str:
    """The instant as the API writes it: `2026-11-23T13:29:58.000Z`."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _intraday(sessions: Sequence[Trades], minutes: int) -> Iterator[Trades]:
    """Every session cut into bars of so many minutes, counted from its opening."""
    for trades in sessions:
        opening, closing = (int(t.timestamp()) for t in (trades.session.open, trades.session.close))
        starts = range(opening, closing, minutes * 60)
        edges = np.searchsorted(trades.seconds, [*starts, closing])
        for start, (left, right) in zip(starts, pairwise(edges), strict=True):
            bar = Session(
                trades.session.day, datetime.fromtimestamp(start, UTC), trades.session.close
            )
            yield Trades(
                bar,
                trades.seconds[left:right],
                trades.prices[left:right],
                trades.volumes[left:right],
            )


def _period(item: tuple[int, Trades], interval: str) -> Hashable:
    """What parts of one bar have in common."""
    number, day = item[0], item[1].session.day
    match interval:
        case "5d":
            return number // 5
        case "1wk":
            return day.isocalendar()[:2]
        case "1mo":
            return day.year, day.month
        case "3mo":
            return day.year, (day.month - 1) // 3
    return number


def _bar(market: Market, ticker: str, parts: Sequence[Trades], today: date) -> dict[str, Any]:
    prices = np.concatenate([part.prices for part in parts])
    last_day = parts[-1].session.day
    close = float(prices[-1])
    paid = (1 - DIVIDEND) ** market.dividends(ticker, last_day, max(today, last_day))
    return {
        "date": int(parts[0].session.open.timestamp()),
        "open": float(prices[0]),
        "high": float(np.max(prices)),
        "low": float(np.min(prices)),
        "close": close,
        "volume": int(sum(part.volumes.sum() for part in parts)),
        "adjustedClose": round(close * paid, 4),
    }


def _year(
    market: Market, ticker: str, as_of: datetime, low: float, high: float
) -> tuple[float, float]:
    """The lowest and the highest of the day and of a year's closing prices."""
    count = market.sessions_before(as_of) - 1
    closes = [s.close for s in market.sessions[max(0, count - SESSIONS_A_YEAR) : count]]
    minutes = np.array([int(close.timestamp()) // 60 - 1 for close in closes], dtype=np.int64)
    worth = market.worth(ticker, minutes)
    return min(low, float(np.min(worth))), max(high, float(np.max(worth)))
