"""A session so far: how each instrument has moved, window by window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from statistics import median

from market_data_pipeline.market.b3_calendar import CLOSING, sessions_back
from market_data_pipeline.market.quote import Quote, by_window
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, TradingWindows, Window
from market_data_pipeline.storage.quote_store import QuoteStore

# The previous close in BRL, by symbol and whether it is made up.
Closes = dict[tuple[str, bool], float]


@dataclass(frozen=True, slots=True)
class Course:
    """What one instrument did in a session, up to a window."""

    quote: Quote
    """Its last row."""
    previous_close: float | None
    """The close of the session before, in BRL; None if it is not known."""
    prices: tuple[float | None, ...]
    """One for each window since the first that has rows; None where it has no trusted price."""

    @property
    def change(self) -> float | None:
        """Since the previous close, in percent; None if that is not known."""
        return (self.quote.price / self.previous_close - 1) * 100 if self.previous_close else None


@dataclass(frozen=True, slots=True)
class Breadth:
    """How many trusted prices are above and below their previous close."""

    advancers: int
    decliners: int
    unchanged: int
    median_change: float
    """In percent."""


class SessionSoFar:
    """The rows of one session, added one window after the other.

    Args:
        day: the session's date in São Paulo.
        closes: the previous closes in BRL, by symbol and whether the price is made up. A
            live quote that carries its own previous close replaces the one given here.
    """

    def __init__(self, day: date, closes: Mapping[tuple[str, bool], float]) -> None:
        self.day = day
        self.windows: list[Window] = []
        """Those since the first with rows."""
        self._closes = dict(closes)
        self._prices: dict[str, list[float | None]] = {}
        self._last: dict[str, Quote] = {}

    def add(self, window: Window, rows: Iterable[Quote]) -> None:
        """Adds the rows of the next window: windows come in the order of time, each once."""
        rows = list(rows)
        if not rows and not self.windows:
            return
        self.windows.append(window)
        for quote in rows:
            ticker = quote.ticker
            self._rename(quote.requested_ticker, ticker)
            self._last[ticker] = quote
            if quote.previous_close:
                self._closes[ticker, quote.made_up] = quote.previous_close
            if quote.trusted:
                prices = self._prices.setdefault(ticker, [])
                prices += [None] * (len(self.windows) - 1 - len(prices))
                prices.append(quote.price)

    def _rename(self, old: str, new: str) -> None:
        """Lets an instrument go on under its new symbol."""
        if old == new:
            return
        for made_up in (True, False):
            if close := self._closes.pop((old, made_up), None):
                self._closes.setdefault((new, made_up), close)
        if old in self._last:
            self._last.setdefault(new, self._last.pop(old))
        if old in self._prices:
            self._prices.setdefault(new, self._prices.pop(old))

    def courses(self, window: Window | None = None) -> list[Course]:
        """Each instrument (with a row in `window`, if given), the one that rose most first."""
        courses = [
            self._course(ticker, quote)
            for ticker, quote in self._last.items()
            if window is None or quote.window_start == window.start
        ]
        known = [course for course in courses if course.change is not None]
        unknown = [course for course in courses if course.change is None]
        return sorted(known, key=lambda course: -(course.change or 0)) + unknown

    def closes(self) -> Closes:
        """The last trusted prices: those of its close once it is over."""
        trusted = [quote for quote in self._last.values() if quote.trusted]
        return {(quote.ticker, quote.made_up): quote.price for quote in trusted}

    def _course(self, ticker: str, quote: Quote) -> Course:
        prices = self._prices.get(ticker, [])
        missing = len(self.windows) - len(prices)
        close = self._closes.get((ticker, quote.made_up))
        return Course(quote, close, (*prices, *[None] * missing))


def read_earlier(
    store: QuoteStore, trading: TradingWindows, window: Window, most: int
) -> tuple[list[Window], list[Quote]]:
    """The windows of a session before one (at most `most`, evenly spread) and their rows."""
    earlier = [each for each in trading.of_session(window.day) if each < window]
    step = -(-len(earlier) // most) or 1
    windows = earlier[::-step][::-1]
    return windows, store.rows_of([each.key for each in windows])


def previous_closes(store: QuoteStore, day: date, tickers: Iterable[str]) -> Closes:
    """The closes before the session on a day: as its own live quotes have them, else as stored.

    A session that is not stored up to its end has no close: its last row is of an earlier moment.
    """
    wanted, found = set(tickers), Closes()
    for rows in _newest_first(store, day, wanted):
        for quote in rows:
            if quote.previous_close:
                found.setdefault((quote.ticker, quote.made_up), quote.previous_close)
    before = sessions_back(day, 1)
    missing = wanted - {ticker for ticker, _ in found}
    for number, rows in enumerate(_newest_first(store, before, missing)):
        if number == 0 and all(quote.window_end < _close(before) for quote in rows):
            break
        for quote in rows:
            if quote.trusted:
                found.setdefault((quote.ticker, quote.made_up), quote.price)
    return found


def _newest_first(store: QuoteStore, day: date, tickers: Iterable[str]) -> Iterator[list[Quote]]:
    """The rows of a session's windows, the last first, until each of some tickers has had one."""
    missing, windows = set(tickers), store.newest_first(_close(day), day)
    while missing and (window := next(windows, None)):
        yield window[1]
        missing -= {quote.ticker for quote in window[1]}


def _close(day: date) -> datetime:
    return datetime.combine(day, CLOSING, EXCHANGE_TIMEZONE)


def follow(
    windows: Sequence[Window], rows: Iterable[Quote], closes: Closes
) -> Iterator[tuple[Window, SessionSoFar]]:
    """Each of some windows, with its session up to it.

    Args:
        windows: in the order of time, of one session or of several that follow each other.
        rows: what is stored of them.
        closes: those before the first session.
    """
    grouped = by_window(rows)
    session: SessionSoFar | None = None
    for window in windows:
        if session is None or session.day != window.day:
            session = SessionSoFar(window.day, session.closes() if session else closes)
        session.add(window, grouped[window])
        yield window, session


def breadth(courses: Iterable[Course]) -> Breadth | None:
    """How the market moved since the previous close; None if no previous close is known."""
    changes = [each.change for each in courses if each.change is not None and each.quote.trusted]
    if not changes:
        return None
    rounded = [round(change, 2) for change in changes]
    up, down = sum(each > 0 for each in rounded), sum(each < 0 for each in rounded)
    return Breadth(up, down, len(rounded) - up - down, round(median(changes), 2))
