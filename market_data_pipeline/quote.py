"""One quote of one paper in one window, and the table that quotes travel in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from datetime import datetime
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


def quotes_frame(quotes: Iterable[Quote]) -> pd.DataFrame:
    """The quotes as a DataFrame with the columns and dtypes of `COLUMNS`, in their order."""
    names = [field.name for field in fields(Quote)]
    return pd.DataFrame([astuple(quote) for quote in quotes], columns=names).astype(COLUMNS)
