"""What the sandbox's market did, taken from its trades: neither from its API nor from our bars."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
from brapi_sandbox.answers import history
from brapi_sandbox.market import Market
from brapi_sandbox.sandbox import Sandbox

from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, TradingWindows, Window


def last_price(market: Market, ticker: str, start: datetime, end: datetime) -> float | None:
    """The price of the last trade in `[start, end)` of one session, None if there was none."""
    day = start.astimezone(EXCHANGE_TIMEZONE).date()
    number = next(n for n, session in enumerate(market.sessions) if session.day == day)
    trades = market.trades(ticker, number)
    first, last = np.searchsorted(trades.seconds, [start.timestamp(), end.timestamp()])
    return float(trades.prices[last - 1]) if last > first else None


def traded_in(market: Market, ticker: str, window: Window) -> float | None:
    """What an intraday bar of the window closes at."""
    return last_price(market, ticker, window.start, window.end)


def traded_on(market: Market, ticker: str, window: Window) -> float | None:
    """What the daily bar of the window's session closes at."""
    return last_price(market, ticker, window.end - timedelta(hours=9), window.end)


def truth(
    market: Market,
    tickers: Iterable[str],
    windows: Iterable[Window],
    traded: Callable[[Market, str, Window], float | None] = traded_in,
) -> dict[tuple[str, Window], float]:
    """The prices that were traded, by ticker and window."""
    pairs = itertools.product(tickers, windows)
    prices = {pair: traded(market, *pair) for pair in pairs}
    return {pair: price for pair, price in prices.items() if price is not None}


def filed(quotes: Iterable[Quote]) -> dict[tuple[str, Window], float]:
    """The prices of rows, by ticker and window."""
    return {(quote.ticker, quote.window): quote.price for quote in quotes}


def windows_between(windows: TradingWindows, first: str, last: str) -> list[Window]:
    """The windows from one key to another, both included."""
    found, end = [windows.from_key(first)], windows.from_key(last)
    while found[-1] < end:
        found.append(windows.next_ending(found[-1].end))
    return found


def bars(sandbox: Sandbox, ticker: str, day: date, interval: str) -> list[dict[str, Any]]:
    """The bars of one session as the API would answer them."""
    return history(sandbox.market, ticker, sandbox.now(), (day, day), interval)


def without(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A document without some of its fields."""
    return {name: value for name, value in document.items() if name not in names}
