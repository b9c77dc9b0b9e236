"""The instruments to request: 50 of them by default, or those of WATCHLIST_FILE."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from market_data_pipeline.market.errors import ClearError

# B3's trading codes: four characters for the issuer, a number for the kind of security.
TICKER = re.compile(r"(?:[A-Z][A-Z0-9]|[0-9][A-Z])[A-Z0-9]{2}[0-9]{1,2}")


class WatchlistError(ClearError):
    """The watchlist cannot be used; the message says which line and what to do."""


@dataclass(frozen=True)
class Instrument:
    """One line of the watchlist: B3's ticker and the market segment it belongs to."""

    ticker: str
    segment: str = ""


def load_watchlist(path: str = "") -> tuple[Instrument, ...]:
    """Reads the watchlist: a CSV file with a `ticker` column and, if wanted, a `segment` one.

    Args:
        path: the file; by default the 50 instruments that come with the package.

    Returns:
        The instruments, in the order of the file.

    Raises:
        WatchlistError: the file is missing, is empty, or has a wrong or duplicate ticker.
    """
    if not path:
        text = resources.files(__package__).joinpath("watchlist.csv").read_text("utf-8")
        return _parse(text, "watchlist.csv")
    try:
        return _parse(Path(path).read_text("utf-8-sig"), path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise WatchlistError(f"WATCHLIST_FILE {path} cannot be read: {reason}.") from None


def _parse(text: str, name: str) -> tuple[Instrument, ...]:
    rows = csv.DictReader(text.splitlines())
    if "ticker" not in (rows.fieldnames or ()):
        raise WatchlistError(f"{name} has no column 'ticker': its first line must name it.")
    instruments = tuple(_instruments(rows, name))
    if not instruments:
        raise WatchlistError(
            f"{name} has no instruments: add one ticker per line below the header."
        )
    return instruments


def _instruments(rows: csv.DictReader[str], name: str) -> Iterator[Instrument]:
    lines: dict[str, int] = {}
    for row in rows:
        ticker, line = _field(row, "ticker"), rows.line_num
        if not TICKER.fullmatch(ticker):
            raise WatchlistError(
                f"{name}, line {line}: {ticker!r} is not a B3 ticker such as PETR4 or HGLG11."
            )
        if ticker in lines:
            raise WatchlistError(
                f"{name}, line {line}: {ticker} is already on line {lines[ticker]}; "
                "remove one of them."
            )
        lines[ticker] = line
        yield Instrument(ticker, _field(row, "segment"))


def _field(row: Mapping[str, str | None], name: str) -> str:
    return (row.get(name) or "").strip()
