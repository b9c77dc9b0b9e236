"""The instruments to request: 50 of them by default, or those of WATCHLIST_FILE."""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from market_data_pipeline import ClearError

# B3's trading codes: four characters for the issuer, a number for the kind of security.
TICKER = re.compile(r"(?=[0-9]*[A-Z])[A-Z0-9]{4}[0-9]{1,2}")
_LARGEST_FILE, _LONGEST_LINE = 2**20, 10_000
# It may be the wrong file, with secrets in it: errors show little of it.
_LONGEST_SHOWN, _MOST_SHOWN = 10, 10
# The cells of a line `sep=;`, which tells Excel the separator.
_SEPARATOR = ["SEP", ""]
_AROUND_A_CELL = " '\"="


class WatchlistError(ClearError):
    """The watchlist cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Watchlist:
    """The tickers to request, and which other lines are left out and why, in a sentence."""

    tickers: tuple[str, ...]
    left_out: str
    """Empty if there is none."""


def load_watchlist(path: str = "") -> Watchlist:
    """Reads the watchlist: a text file, or a spreadsheet saved as CSV, with one ticker per line.

    The tickers are in the column `ticker`, or in that of the first ticker. Columns are separated by
    commas, semicolons or tabs. A line without a ticker is left out.

    Args:
        path: the file; by default the 50 instruments that come with the package.

    Returns:
        The tickers in the order of the file, and why lines are left out.

    Raises:
        WatchlistError: the file cannot be read, or has no ticker.
    """
    if not path:
        return _parse(resources.files(__package__).joinpath("watchlist.csv").read_text("utf-8"))
    try:
        found = _parse(_read(Path(path).expanduser()))
    except OSError as error:
        reason = error.strerror or str(error)
        raise WatchlistError(f"WATCHLIST_FILE {path} cannot be read: {reason}.") from None
    if not found.tickers:
        raise WatchlistError(
            f"WATCHLIST_FILE {path} has no instruments: put a ticker such as PETR4 on each line "
            "below the header `ticker`."
        )
    return found


def _read(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise OSError("it is not a file")  # a pipe would not end, nor would a device
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise OSError("it is larger than 1 MiB")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _parse(text: str) -> Watchlist:
    lines: dict[str, int] = {}
    ignored: list[str] = []
    column: int | None = None
    separator, headed = ",", False
    for number, line in enumerate(text.splitlines(), 1):
        if column is None:
            separator = next((each for each in "\t;" if each in line), ",")
        cells = [*map(_cell, next(csv.reader([line[:_LONGEST_LINE]], delimiter=separator), []))]
        if not any(cells) or line.startswith("#") or cells == _SEPARATOR:
            continue
        if column is None and "TICKER" in cells:
            column, headed = cells.index("TICKER"), True
            continue
        if column is None:
            column = next((n for n, each in enumerate(cells) if TICKER.fullmatch(each)), None)
        ticker, *others = cells[column or 0 :] or [""]
        more = [] if headed else [each for each in others if TICKER.fullmatch(each)]
        if more:
            shown = ", ".join(more[:_MOST_SHOWN])
            ignored.append(f"line {number}: {shown} after another ticker: one ticker a line")
        if not TICKER.fullmatch(ticker):
            ignored.append(f"line {number}: {_refusal(ticker)}")
        elif ticker in lines:
            ignored.append(f"line {number}: {ticker} is already on line {lines[ticker]}")
        else:
            lines[ticker] = number
    shown, hidden = "; ".join(ignored[:_MOST_SHOWN]), len(ignored) - _MOST_SHOWN
    said = f"Left out of the watchlist: {shown}{f'; and {hidden} more' if hidden > 0 else ''}."
    return Watchlist(tuple(lines), said if ignored else "")


def _cell(text: str) -> str:
    text = "".join(filter(str.isprintable, text.partition("#")[0])).strip(_AROUND_A_CELL)
    return text.upper().removesuffix(".SA") if text.isascii() else text


def _refusal(cell: str) -> str:
    """Why a cell is not requested."""
    if TICKER.fullmatch(cell.removesuffix("F")):
        return f"{cell} is of the fractional market: use {cell[:-1]}"
    shown = cell[:_LONGEST_SHOWN]
    if cell.startswith("^"):
        return f"{shown} is an index: use an ETF such as BOVA11, or remove it"
    return f"{shown!r} is not a B3 ticker such as PETR4 or HGLG11" if shown else "no ticker"
