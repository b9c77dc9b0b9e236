"""The form of B3's files of a session or a year: lines of 245 characters in Latin-1."""

from collections.abc import Iterable
from datetime import date
from typing import Any, BinaryIO

from market_data_pipeline.storage.official_close import COLUMNS, Closes

LENGTH = 245
FIELDS = {
    "ticker": (12, 24),
    "session": (2, 10),
    "isin": (230, 242),
    "name": (27, 39),
    "kind": (39, 49),
    "open": (56, 69),
    "high": (69, 82),
    "low": (82, 95),
    "average": (95, 108),
    "close": (108, 121),
    "volume": (152, 170),
    "volume_brl": (170, 188),
    "trades": (147, 152),
    "quote_factor": (210, 217),
    "distribution": (242, 245),
}
"""Where each field of a record begins (from 0) and ends."""


def read(file: BinaryIO, wanted: Iterable[str], origin: str) -> dict[str, Closes]:
    """All sessions of an unpacked file, with the cash-market records of some tickers.

    Raises:
        ValueError: it is incomplete, or not in the form of B3's files.
    """
    sessions, tickers = dict[str, Closes](), {each.encode().ljust(12): each for each in wanted}
    header, trailer, records, number, day = b"", b"", 0, 0, b""
    while line := file.readline(LENGTH + 3):
        number += 1
        kind = line[:2]
        if kind == b"01" and len(line.rstrip(b"\r\n")) == LENGTH and not trailer:
            records += 1
            if line[2:10] != day:
                day = line[2:10]
                closes = sessions.setdefault(_day(day), {})
            ticker = tickers.get(line[12:24]) if line[24:27] == b"010" else None
            if ticker in closes:
                raise ValueError(f"line {number} is a second record of {ticker}")
            if ticker:
                closes[ticker] = _record(line, number) | {"origin": origin}
        elif kind == b"00" and number == 1:
            header = line
        elif kind == b"99" and not trailer:
            trailer = line
        elif line.strip(b"\r\n\x1a "):
            raise ValueError(f"line {number} is no record of {LENGTH} characters")
    if not records or (header and not trailer):  # copies may lack both
        raise ValueError(f"it ends after {records} records")
    # The number in the file of a session includes header and trailer, that of a year does not.
    if trailer and trailer[31:42] not in {b"%011d" % (records + more) for more in (0, 2)}:
        said = trailer[31:42].decode("latin-1")
        raise ValueError(f"it has {records} records, but its last line says {said}")
    if header and (made := _day(header[23:31])) < (last := max(sessions)):
        raise ValueError(f"its header is of {made}, before its records of {last}")
    return sessions


def _record(line: bytes, number: int) -> dict[str, Any]:
    text = "".join(char if char.isprintable() else " " for char in line.decode("latin-1"))
    record: dict[str, Any] = {}
    for name, (start, end) in FIELDS.items():
        field = text[start:end]
        if COLUMNS[name][0] == "string":
            record[name] = field.strip()
        else:
            record[name] = int(field) if field.isdecimal() else None
    factor = record["quote_factor"]
    if None in record.values() or not factor:
        raise ValueError(f"line {number} ({record['ticker']}) lacks a number")
    if not 0 < record["low"] <= record["close"] <= record["high"]:
        raise ValueError(f"line {number} ({record['ticker']}) has a close out of its range")
    for name in ("open", "high", "low", "average", "close"):
        record[name] /= 100 * factor  # of integers: the double that is nearest to the price
    return record | {"session": _day(line[2:10]), "volume_brl": record["volume_brl"] / 100}


def _day(digits: bytes) -> str:
    return f"{date.fromisoformat(digits.decode('latin-1'))}"
