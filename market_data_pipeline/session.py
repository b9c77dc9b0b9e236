"""A session so far: how each instrument has moved, window by window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from statistics import median

from market_data_pipeline.quote import Quote, by_window
from market_data_pipeline.quote_store import QuoteStore
from market_data_pipeline.windows import TradingWindows, Window


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
    """The rows of one session, taken in one window after the other."""

    def __init__(self, day: date, closes: Mapping[str, Quote]) -> None:
        self.day = day
        self.windows: list[Window] = []
        """Those since the first with rows."""
        self._closes = closes
        self._previous: dict[str, float] = {}
        self._prices: dict[str, list[float | None]] = {}
        self._last: dict[str, Quote] = {}

    def add(self, window: Window, rows: Iterable[Quote]) -> None:
        """Takes in the rows of the next window."""
        rows = list(rows)
        if not rows and not self.windows:
            return
        self.windows.append(window)
        for quote in rows:
            ticker = quote.requested_ticker
            self._last[ticker] = quote
            if quote.previous_close:
                self._previous[ticker] = quote.previous_close
            if quote.trusted:
                prices = self._prices.setdefault(ticker, [])
                prices += [None] * (len(self.windows) - 1 - len(prices))
                prices.append(quote.price)

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

    def closes(self) -> dict[str, Quote]:
        """The last trusted rows, by requested ticker: the closing prices once it is over."""
        return {ticker: quote for ticker, quote in self._last.items() if quote.trusted}

    def _course(self, ticker: str, quote: Quote) -> Course:
        before = self._closes.get(ticker)
        close = before.price if before and before.made_up == quote.made_up else None
        prices = self._prices.get(ticker, [])
        missing = len(self.windows) - len(prices)
        return Course(quote, self._previous.get(ticker, close), (*prices, *[None] * missing))


@dataclass
class Past:
    """What was stored before a window: the rows of its session, and the closes of the one before.

    `windows` are those of the session, `closes` the closing rows by requested ticker.
    """

    windows: list[Window] = field(default_factory=list)
    rows: list[Quote] = field(default_factory=list)
    closes: dict[str, Quote] = field(default_factory=dict)


def read_past(
    store: QuoteStore, trading: TradingWindows, window: Window, tickers: Iterable[str], most: int
) -> Past:
    """Reads what was stored before a window.

    Args:
        store: where the rows are.
        trading: the calendar.
        window: of the session that is read.
        tickers: symbols of the watchlist, whose previous closes are looked for.
        most: how many windows of the session are read at the most, evenly spread.
    """
    earlier = [each for each in trading.of_session(window.day) if each < window]
    step = -(-len(earlier) // most) or 1
    windows = earlier[::-step][::-1]
    rows = [quote for each in windows for quote in store.stored(each.key) or ()]
    return Past(windows, rows, closing_rows(store, trading, window.day, tickers))


def closing_rows(
    store: QuoteStore, trading: TradingWindows, day: date, tickers: Iterable[str]
) -> dict[str, Quote]:
    """The last trusted rows of the session before a day, by requested ticker.

    None if that session is not stored up to its end: its last row is then not its close.
    """
    before = trading.sessions_back(day, 1)
    wanted, found = set(tickers), dict[str, Quote]()
    for window in reversed(trading.of_session(before) if before < day else []):
        rows = store.stored(window.key)
        if rows is None and not found:
            return {}
        for quote in rows or ():
            if quote.trusted and quote.requested_ticker in wanted:
                found.setdefault(quote.requested_ticker, quote)
        if wanted <= found.keys():
            break
    return found


def follow(
    windows: Sequence[Window], rows: Iterable[Quote], closes: Mapping[str, Quote]
) -> Iterator[tuple[Window, SessionSoFar]]:
    """Each of some windows, with its session up to it.

    Args:
        windows: in the order of time, of one session or of several that follow each other.
        rows: what is stored of them.
        closes: the closing rows of the session before the first, by requested ticker.
    """
    grouped = by_window(rows)
    session: SessionSoFar | None = None
    for window in windows:
        if session is None or session.day != window.day:
            session = SessionSoFar(window.day, session.closes() if session else closes)
        session.add(window, grouped[window.start])
        yield window, session


def breadth(courses: Iterable[Course]) -> Breadth | None:
    """How the market moved since the previous close; None if no previous close is known."""
    changes = [each.change for each in courses if each.change is not None and each.quote.trusted]
    if not changes:
        return None
    rounded = [round(change, 2) for change in changes]
    up, down = sum(each > 0 for each in rounded), sum(each < 0 for each in rounded)
    return Breadth(up, down, len(rounded) - up - down, round(median(changes), 2))
