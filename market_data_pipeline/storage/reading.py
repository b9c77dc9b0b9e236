"""The Parquet file of a window, and what a run reads of them: each once, damaged or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from datetime import date, timedelta
from itertools import islice
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from upath import UPath

from market_data_pipeline import ClearError
from market_data_pipeline.market.quote import COLUMNS, ROWS, Quote, as_row, merge
from market_data_pipeline.market.windows import (
    LONGEST_INTERVAL,
    Window,
    is_key,
    key_of,
    midnight,
    start_of,
)
from market_data_pipeline.runs.common import QUOTES, WINDOWS
from market_data_pipeline.runs.results import WARN, some, table_if_any, verdict

SUFFIX = ".parquet"
# How many windows are read at once, at the most; object storage serves them side by side.
_MOST_AT_ONCE = 128
_LARGEST_FILE = 16 * 2**20

_TYPES = {"timestamp": pa.timestamp("ms", tz="UTC")}
_SCHEMA = pa.schema(
    pa.field(name, _TYPES.get(kind) or kind, metadata={"description": text})
    for name, (kind, text) in COLUMNS.items()
)
_OLDEST_COLUMNS = [each.name for each in fields(Quote) if each.default is MISSING]

FILES_READABLE = dg.AssetCheckSpec(
    "files_readable",
    asset=QUOTES,
    description="Every stored file that the run has read is whole, and its values make sense. If "
    "not: the run has gone on without its prices; restore it, or materialize its window again.",
)


class QuoteStoreError(ClearError):
    """What is stored cannot be read, written or used; the text says why and what to do."""


class DamagedFileError(Exception):
    """A file does not hold the rows of its window; the text says why, in a few words."""


class Reading:
    """The stored windows as one run reads them.

    A file that cannot be read counts as missing, and is named in `damaged`.
    """

    def __init__(self, folder: UPath) -> None:
        self.damaged: dict[str, str] = {}
        """Why a file cannot be read, by the key of its window."""
        self._folder = folder
        self._rows: dict[str, list[Quote] | None] = {}
        self._names: dict[date, list[str]] = {}

    def windows(self, keys: Sequence[str]) -> dict[str, list[Quote] | None]:
        """The rows of some windows, in the order of the keys; None if there are none stored.

        A window is one request to an object storage, and all of them are sent side by side.

        Raises:
            QuoteStoreError: the storage cannot be read.
        """
        if unread := [key for key in keys if key not in self._rows]:
            with errors_in_words("read", self._folder):
                paths = [self.path_of(key).path for key in unread]
                # The range spares s3fs a request for the size.
                contents = self._folder.fs.cat_ranges(paths, 0, _LARGEST_FILE, on_error="return")
                for key, content in zip(unread, contents, strict=True):
                    self._rows[key] = self._decoded(key, content)
        return {key: self._rows[key] for key in keys}

    def rows_of(self, keys: Sequence[str]) -> list[Quote]:
        """The stored rows of some windows, in the order of the keys. Raises as `windows`."""
        return [quote for rows in self.windows(keys).values() for quote in rows or ()]

    def all_rows_of(self, keys: Sequence[str]) -> list[Quote]:
        """The rows of some windows, in the order of the keys; each of the windows is stored.

        Raises:
            QuoteStoreError: the files cannot be read, or one of the windows was never stored.
        """
        missing = [key for key, rows in self.windows(keys).items() if rows is None]
        for key in missing:
            if why := self.damaged.get(key):
                raise QuoteStoreError(
                    f"{self.path_of(key)} is damaged ({why}): restore it, or materialize `quotes` "
                    "for its window again, which keeps the damaged file beside the new one."
                )
        if missing:
            more = f" and {len(missing) - 1} more windows" if len(missing) > 1 else ""
            raise QuoteStoreError(
                f"There are no stored quotes for {missing[0]}{more} in {self._folder}: materialize "
                "`quotes` for them first."
            )
        return self.rows_of(keys)

    def path_of(self, key: str) -> UPath:
        """The file of a window."""
        return self._folder / f"{key}{SUFFIX}"

    def damaged_files(self) -> list[str]:
        """The files that cannot be read, and why."""
        return [f"{self.path_of(key)} ({why})" for key, why in self.damaged.items()]

    def sessions(self, first: date, last: date) -> dict[Window, list[Quote]]:
        """What is stored of the sessions from one day (São Paulo) to another, by window.

        Raises:
            QuoteStoreError: the storage cannot be read.
        """
        end = key_of(midnight(last + timedelta(days=1)))
        stored = self.windows([*self._stored_keys(end, first)])
        starts = {start_of(key): rows or [] for key, rows in stored.items()}
        return {Window(start, start + WINDOWS.interval): starts[start] for start in starts}

    def last_trusted(self, new: Sequence[Quote], before: Window, oldest: date) -> dict[str, Quote]:
        """The last trusted row of each ticker before a window, by the ticker.

        Args:
            new: the quotes of a run, all made up or none: rows are read until each has one, under
                one of its symbols.
            before: the window. If SYNC_INTERVAL_MINUTES was changed, a window that starts later and
                does not end later counts as before it.
            oldest: the first day (São Paulo) that is looked at.

        Raises:
            QuoteStoreError: the storage cannot be read.
        """
        made_up, found, wanted = any(quote.made_up for quote in new), dict[str, Quote](), [*new]
        # The newest window is usually enough: it is read alone, then more and more at once.
        keys, size = self._stored_keys(key_of(before.end), oldest), 1
        while wanted and (newest := [*islice(keys, size)]):
            for quote in self.rows_of(newest):
                earlier = quote.window_end <= before.end and quote.window != before
                if earlier and quote.trusted and quote.made_up == made_up:
                    found.setdefault(quote.ticker, quote)
            wanted = [each for each in wanted if found.keys().isdisjoint(each.symbols)]
            size = min(4 * size, _MOST_AT_ONCE)
        return found

    def _stored_keys(self, before: str, oldest: date) -> Iterator[str]:
        month = date.fromisoformat(f"{before[:7]}-01")
        while month >= oldest.replace(day=1):
            if month not in self._names:
                with errors_in_words("listed", self._folder):
                    found = self._folder.glob(f"{month:%Y-%m}-*{SUFFIX}")
                    self._names[month] = [path.name.removesuffix(SUFFIX) for path in found]
            # The keys are local times: their order is that of time.
            keys = [key for key in self._names[month] if oldest.isoformat() <= key < before]
            yield from sorted(filter(is_key, keys), reverse=True)
            month = (month - timedelta(days=1)).replace(day=1)

    def _decoded(self, key: str, content: bytes | Exception) -> list[Quote] | None:
        if isinstance(content, Exception):
            code = _code_of_s3(content)
            if isinstance(content, FileNotFoundError) and code != "NoSuchBucket":
                return None
            # An empty object has no range, and a folder is no file.
            if code != "InvalidRange" and not isinstance(content, IsADirectoryError):
                raise content
            content = b""
        try:
            return decode(content, key)
        except DamagedFileError as error:
            self.damaged[key] = str(error)
            return None


def files_readable(stored: Reading, windows: Sequence[Window]) -> dg.AssetCheckResult:
    """Whether all files that were read are whole; `windows` are those that the run stores anew."""
    replaced = stored.damaged.keys() & {window.key for window in windows}
    rows = [{"window": key, "reason": why} for key, why in stored.damaged.items()]
    fault = (
        f"{len(rows)} files cannot be read: {some(stored.damaged_files(), '; ')}. This run "
        f"replaces {len(replaced)} of them and keeps them as `_….damaged`. The others are left "
        "out: restore them, or materialize their windows again."
    )
    return verdict(
        FILES_READABLE,
        windows,
        fault if rows else "",
        "Every file is readable.",
        WARN,
        **table_if_any("damaged", rows),
    )


def encode(quotes: list[Quote]) -> bytes:
    """The rows of a window as a Parquet file."""
    table = pa.Table.from_pylist([as_row(quote) for quote in quotes], schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    return bytes(sink.getvalue())


def decode(content: bytes, key: str) -> list[Quote]:
    """The rows of a Parquet file, merged; those of older versions have fewer columns.

    Raises:
        DamagedFileError: it is not such a file, a value is invalid, or a row is not of the window.
    """
    try:
        quotes = ROWS.validate_python(_records(content))
        start = start_of(key)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        (row, column), said = first["loc"], first["msg"].partition(" ")[2]  # `Input should be …`
        raise DamagedFileError(f"row {int(row) + 1}: {column} {said}") from None
    except Exception as error:  # PyArrow has many kinds of them
        raise DamagedFileError(str(error).partition("\n")[0].rstrip(".")) from None
    for number, quote in enumerate(quotes, 1):
        if not quote.window_start == start < quote.window_end <= start + LONGEST_INTERVAL:
            raise DamagedFileError(f"row {number} is of another window")
    return merge(quotes)


def is_local(folder: UPath) -> bool:
    """Whether it is a folder of this machine."""
    return folder.protocol in ("", "file", "local")


@contextmanager
def errors_in_words(done: str, folder: UPath | str) -> Iterator[None]:
    """Turns errors of file systems and object storages into a sentence without a traceback.

    Raises:
        QuoteStoreError: the block failed.
    """
    try:
        yield
    except Exception as error:
        raise QuoteStoreError(
            f"The stored quotes in {folder} cannot be {done}: {_reason(error)}. Check QUOTES_PATH "
            "(its space, permissions and credentials), then materialize the window again."
        ) from None


def _reason(error: Exception) -> str:
    said = getattr(error, "strerror", None) or str(error)
    return str(said).rstrip(".") or type(error).__name__


def _code_of_s3(error: Exception) -> str:
    """What S3 calls an error; empty if it is none of S3."""
    answer: dict[str, Any] = getattr(error.__cause__, "response", {})
    return str(answer.get("Error", {}).get("Code", ""))


def _records(content: bytes) -> list[dict[str, object]]:
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    names = file.schema_arrow.names
    for name in _OLDEST_COLUMNS:
        if name not in names:
            raise DamagedFileError(f"it has no column {name}")
    records: list[dict[str, object]] = file.read([*filter(COLUMNS.get, names)]).to_pylist()
    return records
