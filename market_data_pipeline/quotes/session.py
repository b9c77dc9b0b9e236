"""A session so far: the prices of its instruments, window by window, since the previous close."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import groupby
from math import isnan, nan
from typing import Any, NamedTuple

import pandas as pd

from market_data_pipeline.market.b3_calendar import CLOSING
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window
from market_data_pipeline.runs.common import WINDOWS

Rows = Mapping[Window, Sequence[Quote]]
# The symbol, and whether the price is made up: such prices are not compared with real ones.
Key = tuple[str, bool]


class Instrument(NamedTuple):
    """An instrument at the end of a window. What is not known is NaN."""

    quote: Quote
    previous_close: float
    """In BRL."""
    change: float
    """Since the previous close, in percent."""
    prices: list[float]
    """The trusted ones in BRL, in each window since the first of the session that has rows."""


class Sessions:
    """The prices of sessions that follow each other.

    Args:
        rows: the rows of their windows. The previous close is that of a live quote, or else the
            last trusted price of the session before, if its last window is among them.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = {window: rows[window] for window in sorted(rows)}
        self._symbols = _changed_symbols(rows)
        self._prices: dict[tuple[Key, Window], float] = {}
        self._closes: dict[date, dict[Key, float]] = {}
        last: dict[Key, float] = {}
        for day, windows in groupby(self._rows, lambda window: window.day):
            closes, last = last, {}
            for window in windows:
                for quote in self._rows[window]:
                    key = self._key(quote)
                    if quote.previous_close:
                        closes[key] = quote.previous_close
                    if quote.trusted:
                        last[key] = self._prices[key, window] = quote.price
            self._closes[day] = closes
            if window.end.astimezone(EXCHANGE_TIMEZONE).time() < CLOSING:
                last = {}

    def at(self, window: Window) -> list[Instrument]:
        """The instruments with a row in a window: what rose most first, what is withheld last."""
        return self._instruments(window, self._rows[window])

    def until(self, window: Window) -> list[Instrument]:
        """The instruments with a row in the session up to a window, in the same order."""
        windows = (each for each in self._rows if each.day == window.day and each <= window)
        newest = {self._key(quote)[0]: quote for each in windows for quote in self._rows[each]}
        return self._instruments(window, newest.values())

    def _key(self, quote: Quote) -> Key:
        return self._symbols.get(quote.ticker, quote.ticker), quote.made_up

    def _instruments(self, window: Window, quotes: Iterable[Quote]) -> list[Instrument]:
        of_session = [each for each in WINDOWS.of_session(window.day) if each <= window]
        first = min((each for each in of_session if self._rows.get(each)), default=window)
        windows = [each for each in of_session if first <= each]
        instruments = []
        for quote in quotes:
            key = self._key(quote)
            close = self._closes[window.day].get(key, nan)
            prices = [self._prices.get((key, each), nan) for each in windows]
            instruments.append(Instrument(quote, close, (quote.price / close - 1) * 100, prices))
        return sorted(
            instruments,
            key=lambda each: (not each.quote.trusted, isnan(each.change), -each.change),
        )


def breadth(instruments: Sequence[Instrument]) -> dict[str, Any]:
    """How the market moved since the previous close, by trusted prices; empty if none is known."""
    trusted = [each.change for each in instruments if each.quote.trusted]
    changes = pd.Series(trusted, dtype=float).dropna()
    if changes.empty:
        return {}
    shown = changes.round(2)
    return {
        "advancers": int((shown > 0).sum()),
        "decliners": int((shown < 0).sum()),
        "unchanged": int((shown == 0).sum()),
        "median_change_percent": round(float(changes.median()), 2),
    }


def median_changes(instruments: Sequence[Instrument]) -> list[float]:
    """The median change since the previous close in each window, in percent.

    An instrument without a price in a window counts with its last one.
    """
    trusted = [each for each in instruments if each.quote.trusted]
    prices = pd.DataFrame([each.prices for each in trusted])
    prices = prices.ffill(axis=1).where(prices.notna().any(), axis=1)
    closes = pd.Series([each.previous_close for each in trusted])
    medians: list[float] = (prices.div(closes, axis=0) - 1).mul(100).median().tolist()
    return medians


def _changed_symbols(rows: Rows) -> dict[str, str]:
    """The symbols that others were answered under, unless both have a row in one window."""
    windows = defaultdict(set)
    for window, quotes in rows.items():
        for quote in quotes:
            windows[quote.ticker].add(window)
    asked_and_answered = {quote.symbols for quotes in rows.values() for quote in quotes}
    return {old: new for old, new in sorted(asked_and_answered) if not windows[old] & windows[new]}
