"""One quote of one paper in one window, and the table that quotes travel in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Literal

import pandas as pd

Source = Literal["live", "intraday", "daily"]


@dataclass(frozen=True)
class Quote:
    """A price that the market made, filed under the window it belongs to.

    All instants are UTC. `price` is in BRL. `volume` counts the papers traded: in the day so far
    for a live quote, in the bar for one from the history; None where Brapi gives none.
    """

    ticker: str
    """The symbol that Brapi answers with; a renamed paper carries its new one."""
    name: str | None
    short_name: str | None
    price: float
    volume: int | None
    updated_at: datetime
    """When the market made the price."""
    window_start: datetime
    window_end: datetime
    observed_at: datetime
    """When Brapi was asked."""
    source: Source
    """`live`: the quote endpoint; `intraday` and `daily`: a bar of the price history."""
    requested_ticker: str
    """The symbol of the watchlist."""


# Milliseconds are what a BSON date holds: a finer stamp would differ after a round trip.
_INSTANT = "datetime64[ms, UTC]"
COLUMNS: dict[str, str] = {
    "ticker": "str",
    "name": "str",
    "short_name": "str",
    "price": "float64",
    "volume": "Int64",
    "updated_at": _INSTANT,
    "window_start": _INSTANT,
    "window_end": _INSTANT,
    "observed_at": _INSTANT,
    "source": "str",
    "requested_ticker": "str",
}
DESCRIPTIONS: dict[str, str] = {
    "ticker": "Symbol that Brapi answers with; a renamed paper carries its new one",
    "name": "Full name of the paper",
    "short_name": "Name as the exchange abbreviates it",
    "price": "Price in BRL that was traded",
    "volume": "Papers traded: in the day so far for a live quote, in the bar for history",
    "updated_at": "When the market made the price, UTC; the end of the bar for history",
    "window_start": "Start of the window, UTC, included",
    "window_end": "End of the window, UTC, not included",
    "observed_at": "When Brapi was asked, UTC",
    "source": "live: the quote endpoint; intraday, daily: a bar of the price history",
    "requested_ticker": "Symbol of the watchlist",
}


def quotes_frame(quotes: Iterable[Quote]) -> pd.DataFrame:
    """The quotes as a DataFrame with the columns and dtypes of `COLUMNS`, in their order."""
    rows = map(attrgetter(*COLUMNS), quotes)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def quotes_from(frame: pd.DataFrame) -> list[Quote]:
    """The rows of such a DataFrame as quotes; what is missing in them is None."""
    values = frame[list(COLUMNS)].astype(object)
    values = values.where(values.notna(), None)
    return [Quote(*row) for row in values.itertuples(index=False, name=None)]
