"""The record of a price: one row for each instrument and window, and the rule that merges rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import AwareDatetime, Field, Strict, TypeAdapter

from market_data_pipeline.market.windows import Window

K = TypeVar("K")
Source = Literal["live", "intraday", "daily"]
Decision = Literal["clear", "withheld", "accepted"]

# The origin of a made-up price.
SANDBOX = "brapi-sandbox"

# The types that stored values must have; none is converted.
Symbol = Annotated[str, Strict(), Field(min_length=1)]
Text = Annotated[str, Strict()]
Price = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Volume = Annotated[int, Strict(), Field(ge=0)]
Instant = Annotated[AwareDatetime, Strict()]


@dataclass(frozen=True, slots=True)
class Quote:
    """The price of one instrument in one window, and all that is known about it.

    All instants are aware and in UTC, to the millisecond (what a BSON date holds). The Parquet
    files, the collection and Dagster's UI have these fields, under these names.
    """

    ticker: Annotated[
        Symbol, "Symbol that Brapi answers with; the new one if B3 has renamed the instrument"
    ]
    name: Annotated[Text | None, "Full name"]
    short_name: Annotated[Text | None, "Name as the exchange abbreviates it"]
    price: Annotated[
        Price, "Price in BRL: as traded; for a bar, Brapi's close, which may be adjusted"
    ]
    volume: Annotated[
        Volume | None,
        "Shares or units traded in the session so far; null if that is not known",
    ]
    updated_at: Annotated[
        Instant, "When the market made the price, UTC; the window's end for a bar"
    ]
    window_start: Annotated[Instant, "Start of the window, UTC, included"]
    window_end: Annotated[Instant, "End of the window, UTC, not included"]
    observed_at: Annotated[Instant, "When the request was sent, UTC"]
    source: Annotated[
        Source, "live: the quote endpoint; intraday, daily: a bar of the price history"
    ]
    requested_ticker: Annotated[Symbol, "Symbol of the watchlist"]
    bar_volume: Annotated[
        Volume | None, "Shares or units traded in the bar; null for a live quote"
    ] = None
    previous_close: Annotated[
        Price | None, "Previous session's close in BRL, according to Brapi; null for a bar"
    ] = None
    origin: Annotated[
        Text | None, f"Host that answered; {SANDBOX} for a made-up price; null in old rows"
    ] = None
    reference_price: Annotated[
        Price | None, "Price in BRL that this one was compared with; null if there was none"
    ] = None
    decision: Annotated[
        Decision, "clear, withheld (moved too far, not published) or accepted (by an operator)"
    ] = "clear"

    @property
    def window(self) -> Window:
        """The window that the price belongs to."""
        return Window(self.window_start, self.window_end)

    @property
    def symbols(self) -> tuple[str, str]:
        """The symbols of the watchlist and of Brapi's answer; they differ after a rename."""
        return self.requested_ticker, self.ticker

    @property
    def made_up(self) -> bool:
        """Whether the price comes from the sandbox, not from a market."""
        return self.origin == SANDBOX

    @property
    def rank(self) -> str:
        """A text that orders the rows of one instrument and window: the highest one is kept.

        No two different rows have the same rank, even if two runs ask in the same millisecond.
        """
        made, asked = (
            instant.astimezone(UTC).isoformat(timespec="milliseconds")
            for instant in (self.updated_at, self.observed_at)
        )
        first = f"{not self.made_up:d}{self.source == 'live':d}{self.trusted:d}"
        return f"{first}|{made}|{asked}|{self.decision}|{self.requested_ticker}|{self.price}"

    @property
    def trusted(self) -> bool:
        """Whether it may be published, and later prices may be compared with it."""
        return self.decision != "withheld"


_KINDS = {str: "string", float: "double", int: "int64", AwareDatetime: "timestamp"}


def _kind(hint: Any) -> str:
    """The type of a column, given the type of its field, which may be optional or annotated."""
    if isinstance(hint, str):  # a word of a `Literal`
        return "string"
    return _KINDS.get(hint) or _kind(get_args(hint)[0])


COLUMNS = {
    name: (_kind(hint), str(hint.__metadata__[-1]))
    for name, hint in get_type_hints(Quote, include_extras=True).items()
}
"""Type and description of every field of a row, in their order."""
ROWS = TypeAdapter(list[Quote])
"""Makes quotes of stored rows, or says which value is wrong; it ignores what is no field."""


def origin_of(host: str, headers: Mapping[str, str]) -> str:
    """The origin of what a host answered with these headers: the sandbox says that it is one."""
    # A proxy replaces `Server`; older sandboxes have no header of their own.
    made_up = "Brapi-Sandbox" in headers or headers.get("Server", "").startswith(SANDBOX)
    return SANDBOX if made_up else host


def as_row(quote: Quote) -> dict[str, Any]:
    """The fields of a quote by their names."""
    return {name: getattr(quote, name) for name in COLUMNS}


def by_window(quotes: Iterable[Quote]) -> dict[Window, list[Quote]]:
    """The quotes by their window (an empty list for any other), in their order."""
    return _grouped(quotes, lambda quote: quote.window)


def by_start(quotes: Iterable[Quote]) -> dict[datetime, list[Quote]]:
    """The quotes by the start of their window (an empty list for any other), in their order."""
    return _grouped(quotes, lambda quote: quote.window_start)


def merge(*rows: Iterable[Quote]) -> list[Quote]:
    """Merges rows: of several for the same instrument and window, one is kept.

    It is, in this order, a real price rather than a made-up one, a live quote rather than a bar, a
    trusted price rather than a withheld one, the later price, the later observation. If
    SYNC_INTERVAL_MINUTES was changed, windows with the same start may differ in their end: the one
    that was observed last is kept. The order of the arguments does not matter. Both stores follow
    this function, so they hold the same rows after any sequence of runs.

    Returns:
        One row for each requested ticker and start of a window, and no two with the same symbol; by
        start, then in the order of first appearance.
    """
    requested = _best(chain(*rows), lambda quote: (quote.requested_ticker, quote.window_start))
    kept = _best(requested, lambda quote: (quote.ticker, quote.window_start))
    return sorted(kept, key=lambda quote: quote.window_start)


def _best(rows: Iterable[Quote], key: Callable[[Quote], tuple[str, datetime]]) -> list[Quote]:
    """The best row of each key, in the order of first appearance."""
    rivals = _grouped(rows, key).values()
    return [several[0] if len(several) == 1 else _of_rivals(several) for several in rivals]


def _grouped(quotes: Iterable[Quote], key: Callable[[Quote], K]) -> dict[K, list[Quote]]:
    grouped: dict[K, list[Quote]] = defaultdict(list)
    for quote in quotes:
        grouped[key(quote)].append(quote)
    return grouped


def _of_rivals(rows: Sequence[Quote]) -> Quote:
    newest = max(rows, key=lambda quote: (not quote.made_up, quote.observed_at, quote.window_end))
    same = (quote for quote in rows if quote.window_end == newest.window_end)
    return max(same, key=lambda quote: quote.rank)
