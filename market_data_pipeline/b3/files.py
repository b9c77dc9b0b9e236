"""B3's files of a session or a year, over HTTP: one request a second at the most; no token."""

import time
from collections.abc import Iterable
from datetime import date
from io import BufferedReader, RawIOBase
from tempfile import TemporaryFile
from typing import IO, Any, BinaryIO, cast
from urllib.parse import urlsplit
from zipfile import ZipFile

import requests
from urllib3.exceptions import HTTPError

from market_data_pipeline import ClearError
from market_data_pipeline.brapi.connection import Session
from market_data_pipeline.market.quote import origin_of
from market_data_pipeline.settings import settings
from market_data_pipeline.storage.official_close import COLUMNS, Closes

ATTEMPTS = 3
SECONDS, SOCKET_SECONDS = 300, 60
# A session takes 4 MB unpacked, a year 0.8 GB; zipped a ninth of it.
LARGEST_ZIP, LARGEST_FILE = 2**29, 2**32

# The form of a file: lines of 245 characters in Latin-1.
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
CURRENCY = slice(52, 56)
FIRST_DAY_IN_REAIS = date(1994, 7, 1)


class B3Error(ClearError):
    """B3 did not answer as it should; the text says why."""


class FileError(B3Error):
    """B3 has no such file or does not serve it, or it is damaged or another one: not used."""


class B3History:
    """B3's files of official prices, by default those at B3_HISTORY_URL."""

    def __init__(self, url: str = "", pause: float = 1.0) -> None:
        self._url = (url or settings().b3_history_url).rstrip("/")
        self._verify = settings().b3_ca_bundle or True
        self._pause, self._next = pause, 0.0

    def sessions(self, period: str, wanted: Iterable[str]) -> dict[str, Closes]:
        """The sessions of a day (`2026-11-23`) or a year (`2026`), with B3's records of tickers.

        Raises:
            FileError: there is no such file, or it cannot be used.
            B3Error: B3 cannot be reached.
        """
        year, *day = period.split("-")
        name = f"COTAHIST_{'D' if day else 'A'}{''.join(reversed(day))}{year}.ZIP"
        try:
            with TemporaryFile() as file:
                sessions = _unpacked(file, wanted, self._fetch(name, file))
            if others := [key for key in sessions if not key.startswith(period)]:
                raise ValueError(f"it has records of {others[0]}")
        except ClearError:
            raise
        except Exception as error:  # zipfile raises whatever a damaged archive leads to
            raise FileError(f"{name} cannot be used: {error}.") from None
        return sessions

    def _fetch(self, name: str, file: IO[bytes]) -> str:
        """Downloads a file, in a few attempts; returns where it comes from."""
        why: Exception | None = None
        for attempt in range(ATTEMPTS):
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + self._pause * 2**attempt
            file.truncate(file.seek(0))
            try:
                return self._download(name, file)
            except (requests.RequestException, HTTPError, OSError) as error:
                why = error
        of_the_file = type(why) is OSError  # the next file may be served
        said = why if of_the_file else type(why).__name__
        raise (FileError if of_the_file else B3Error)(
            f"{name} could not be downloaded from B3 in {ATTEMPTS} attempts ({said}): check "
            "B3_HISTORY_URL, B3_CA_BUNDLE (for an SSLError) and the network, then materialize the "
            "session again."
        )

    def _download(self, name: str, file: IO[bytes]) -> str:
        url, until = f"{self._url}/{name}", time.monotonic() + SECONDS
        # A redirect, which is not followed, could lead to an address that is not verified.
        with (
            Session() as session,
            session.get(url, timeout=SOCKET_SECONDS, stream=True, verify=self._verify) as response,
        ):
            if response.status_code == 404:
                raise FileError(
                    f"B3 has no {name}, which appears in the evening or the night after a session."
                )
            if response.status_code != 200:
                raise OSError(f"it answered {response.status_code}")
            while chunk := response.raw.read1(2**16, decode_content=True):
                file.write(chunk)
                if file.tell() > LARGEST_ZIP:
                    raise ValueError("it is too large")
                if time.monotonic() > until:
                    raise OSError(f"it took more than {SECONDS} s")
        return origin_of(str(urlsplit(url).hostname), response.headers)


def _unpacked(file: IO[bytes], wanted: Iterable[str], origin: str) -> dict[str, Closes]:
    with ZipFile(file) as archive:
        names = {each: each.filename.rpartition("/")[2].upper() for each in archive.infolist()}
        members = [each for each, name in names.items() if name.startswith("COTAHIST")]
        if len(members) != 1 or members[0].file_size > LARGEST_FILE:
            raise ValueError(f"it holds {len(members)} files of prices, or one that is too large")
        with archive.open(members[0]) as member:
            return _read(BufferedReader(cast(RawIOBase, member), 2**20), wanted, origin)


def _read(file: BinaryIO, wanted: Iterable[str], origin: str) -> dict[str, Closes]:
    """All sessions of an unpacked file, with the cash-market records of some tickers."""
    sessions, tickers = dict[str, Closes](), {each.encode().ljust(12): each for each in wanted}
    header, trailer, records, number, day = b"", b"", 0, 0, b""
    in_reais = f"{FIRST_DAY_IN_REAIS:%Y%m%d}".encode()
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
            if ticker and day >= in_reais:
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
    if line[CURRENCY] != b"R$  ":
        raise ValueError(f"line {number} ({record['ticker']}) is not in R$")
    for name, text in (("close", "a close"), ("open", "an open"), ("average", "an average")):
        if not 0 < record["low"] <= record[name] <= record["high"]:
            raise ValueError(f"line {number} ({record['ticker']}) has {text} out of its range")
    for name in ("open", "high", "low", "average", "close"):
        record[name] /= 100 * factor  # of integers: the double that is nearest to the price
    return record | {"session": _day(line[2:10]), "volume_brl": record["volume_brl"] / 100}


def _day(digits: bytes) -> str:
    return f"{date.fromisoformat(digits.decode('latin-1'))}"
