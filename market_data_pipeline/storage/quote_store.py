"""The record of all quotes: one Parquet file a window, read by both sinks and by later windows."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
from pydantic import Field, PrivateAttr
from upath import UPath

from market_data_pipeline.market.errors import ClearError
from market_data_pipeline.market.quote import COLUMNS, Quote, as_row, from_row, merge
from market_data_pipeline.market.windows import Window, key_of, start_of
from market_data_pipeline.runs.asset_keys import QUOTES

_SUFFIX = ".parquet"
_INSTANTS = [name for name, (kind, _) in COLUMNS.items() if kind == "timestamp"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_NAMED = 10
# How many windows are read at once, at the most; object storage serves them side by side.
_MOST_AT_ONCE = 128


class QuoteStoreError(ClearError):
    """The files cannot be read or written; the text says where, why and what to do."""


class MissingQuotesError(ClearError):
    """A window was never stored; the text says which and what to do."""


class MadeUpPricesError(ClearError):
    """Made-up prices were about to reach a database or a broker."""


class QuoteStore(dg.ConfigurableResource["QuoteStore"]):
    """Keeps the rows of each window in a Parquet file of its own, and merges what is added.

    A file appears whole or not at all. A window without a row has a file too: it was asked for.

    Example:
        ```python
        from market_data_pipeline.storage.quote_store import QuoteStore

        rows = QuoteStore(path="s3://bucket/quotes").load(["2026-11-23T10:00-0300"])
        prices = {quote.ticker: quote.price for quote in rows}
        ```
    """

    path: str = Field(
        default="",
        description="Folder or fsspec address (such as s3://bucket/quotes) of the files; by "
        "default the storage folder of the Dagster instance.",
    )
    publish_made_up_prices: bool = Field(
        default=False,
        description="Let the made-up prices of a sandbox reach the database and the topic.",
    )
    _default: str = PrivateAttr(default="")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Finds the storage folder of the instance."""
        if not self.path and context.instance:
            self._default = context.instance.storage_directory()

    @property
    def folder(self) -> UPath:
        """Where the files are."""
        return self.folder_of(QUOTES)

    def folder_of(self, key: dg.AssetKey) -> UPath:
        """Where the files of an asset are."""
        with _in_words("found", self.path):
            folder = UPath(self.path or self._default)
            if _is_local(folder):
                folder = UPath(Path(folder.path).expanduser())
        return folder.joinpath(*key.path)

    def write(self, contents: Mapping[UPath, bytes]) -> None:
        """Writes files, each of which appears whole or not at all.

        Raises:
            QuoteStoreError: they cannot be written.
        """
        folder = self.folder
        with _in_words("written", folder):
            if not folder.fs.async_impl:  # an object storage has no folders, only buckets
                for parent in {path.parent for path in contents}:
                    parent.mkdir(parents=True, exist_ok=True)
            if not _is_local(folder):
                # An object storage shows an object whole or not at all.
                folder.fs.pipe({path.path: content for path, content in contents.items()})
                return
            for path, content in contents.items():
                unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
                unfinished.write_bytes(content)
                unfinished.replace(path)

    def may_leave(self, quote: Quote) -> bool:
        """Whether a price may reach the database and the topic."""
        return self.publish_made_up_prices or not quote.made_up

    def load(self, keys: Sequence[str]) -> list[Quote]:
        """The rows of some windows for a sink, in the order of the keys.

        Without those that are made up and may not leave; the log tells of them.

        Raises:
            MissingQuotesError: one of them was never stored.
            MadeUpPricesError: all prices are made up, and none may leave.
            QuoteStoreError: the files cannot be read.
        """
        stored = dict(self.stored_windows(keys))
        if missing := [key for key, rows in stored.items() if rows is None]:
            more = f" and {len(missing) - 1} more windows" if len(missing) > 1 else ""
            raise MissingQuotesError(
                f"There are no stored quotes for {missing[0]}{more} in {self.folder}: materialize "
                "`quotes` for them first."
            )
        quotes = [quote for rows in stored.values() for quote in rows or ()]
        made_up = [quote for quote in quotes if not self.may_leave(quote)]
        if not made_up:
            return quotes
        if len(made_up) == len(quotes):
            raise MadeUpPricesError(
                f"The prices in {self.folder} are made up by a sandbox, so they go to no database "
                "and no broker: set BRAPI_TOKEN (and unset BRAPI_BASE_URL) for real ones, or "
                "PUBLISH_MADE_UP_PRICES=true for a database and a broker of tests."
            )
        dg.get_dagster_logger().warning(
            f"Left out, as a sandbox made them up: {len(made_up)} of {len(quotes)} prices, of "
            f"{', '.join(sorted({quote.ticker for quote in made_up})[:_MOST_NAMED])}. Materialize "
            "`quotes` again for real ones."
        )
        return [quote for quote in quotes if self.may_leave(quote)]

    def stored_windows(self, keys: Sequence[str]) -> Iterator[tuple[str, list[Quote] | None]]:
        """The rows of some windows, in the order of the keys; None if a window was never stored.

        A window is one request to an object storage, and all of them are sent side by side.

        Raises:
            QuoteStoreError: a file cannot be read.
        """
        folder = self.folder
        with _in_words("read", folder):
            paths = [(folder / f"{key}{_SUFFIX}").path for key in keys]
            # The range spares s3fs a request for the size.
            contents = folder.fs.cat_ranges(paths, 0, None, on_error="return")
        for key, content in zip(keys, contents, strict=True):
            yield key, None if _is_missing(content) else _rows(content, folder / f"{key}{_SUFFIX}")

    def stored(self, key: str) -> list[Quote] | None:
        """The rows of one window; None if it was never stored. Raises as `stored_windows`."""
        return next(rows for _, rows in self.stored_windows([key]))

    def rows_of(self, keys: Sequence[str]) -> list[Quote]:
        """All stored rows of some windows. Raises as `stored_windows`."""
        return [quote for _, rows in self.stored_windows(keys) for quote in rows or ()]

    def save(self, quotes: Iterable[Quote], keys: Sequence[str]) -> None:
        """Merges rows into those of their windows.

        Args:
            quotes: rows of windows among `keys`.
            keys: the windows that were asked for; those without a row are stored empty.

        Raises:
            QuoteStoreError: the files cannot be read or written.
        """
        folder, changed = self.folder, dict[UPath, bytes]()
        rows = defaultdict[datetime, list[Quote]](list)
        for quote in quotes:
            rows[quote.window_start].append(quote)
        for key, there in self.stored_windows(keys):
            merged = merge(there or (), rows[start_of(key)])
            if merged != there:
                changed[folder / f"{key}{_SUFFIX}"] = _parquet(merged)
        self.write(changed)

    def last_trusted(
        self, tickers: Iterable[str], before: Window, oldest: date, *, made_up: bool
    ) -> dict[str, Quote]:
        """The last trusted row of each ticker before a window, by the ticker.

        Args:
            tickers: symbols of the watchlist.
            before: the window. One that starts later and ends no later is before it too, of an
                earlier SYNC_INTERVAL_MINUTES.
            oldest: the first day (São Paulo) that is looked at.
            made_up: whether made-up prices are looked for, or real ones.

        Raises:
            QuoteStoreError: the files cannot be read.
        """
        wanted, found = set(tickers), dict[str, Quote]()
        windows = self.newest_first(before.end, oldest)
        while wanted and (window := next(windows, None)):
            for quote in window[1]:
                earlier = quote.window_end <= before.end and quote.window != before
                if earlier and quote.trusted and quote.made_up == made_up:
                    for ticker in wanted.intersection(quote.symbols):
                        found[ticker] = quote
            wanted -= found.keys()
        return found

    def newest_first(self, before: datetime, oldest: date) -> Iterator[tuple[str, list[Quote]]]:
        """The stored windows that start before an instant, back to a day, with their rows.

        The first is mostly all that is needed and is read alone, then more and more at once.

        Raises:
            QuoteStoreError: the files cannot be read.
        """
        keys, size = self._stored_keys(key_of(before), oldest), 1
        while some := list(islice(keys, size)):
            for key, rows in self.stored_windows(some):
                yield key, rows or []
            size = min(4 * size, _MOST_AT_ONCE)

    def _stored_keys(self, before: str, oldest: date) -> Iterator[str]:
        folder, month = self.folder, date.fromisoformat(f"{before[:7]}-01")
        while month >= oldest.replace(day=1):
            with _in_words("listed", folder):
                names = [path.name for path in folder.glob(f"{month:%Y-%m}-*{_SUFFIX}")]
            # All keys have the form of `before` and are local times: their order is that of time.
            keys = (name.removesuffix(_SUFFIX) for name in names)
            yield from sorted(
                (key for key in keys if oldest.isoformat() <= key < before), reverse=True
            )
            month = (month - timedelta(days=1)).replace(day=1)


def _is_local(folder: UPath) -> bool:
    return folder.protocol in ("", "file", "local")


@contextmanager
def _in_words(done: str, folder: UPath | str) -> Iterator[None]:
    """Turns what file systems and object storages raise into a sentence without a traceback."""
    try:
        yield
    except Exception as error:
        why = str(error).rstrip(".") or type(error).__name__
        raise QuoteStoreError(
            f"The stored quotes in {folder} cannot be {done}: {why}. "
            "Check QUOTES_PATH and its credentials, then materialize the window again."
        ) from None


def _is_missing(content: bytes | Exception) -> bool:
    """Whether there is no such file; a bucket that is missing is another matter."""
    answer: dict[str, Any] = getattr(getattr(content, "__cause__", None), "response", {})
    no_bucket = answer.get("Error", {}).get("Code") == "NoSuchBucket"
    return isinstance(content, FileNotFoundError) and not no_bucket


def _rows(content: bytes | Exception, path: UPath) -> list[Quote]:
    if isinstance(content, Exception):
        with _in_words("read", path.parent):
            raise content
    try:
        return [*map(from_row, _records(content))]
    except Exception as error:
        raise QuoteStoreError(
            f"{path} is damaged ({str(error).rstrip('.')}): restore it, or remove it and "
            "materialize its window again."
        ) from None


# PyArrow imports pandas before it makes an array of a list, or a datetime of an instant: half a
# second, at the moment that consumers wait for. From JSON it makes a table without, and here it
# takes instants for numbers.


def _parquet(quotes: list[Quote]) -> bytes:
    import pyarrow as pa
    import pyarrow.json
    import pyarrow.parquet as pq

    types = {"timestamp": pa.timestamp("ms", tz="UTC"), "bool": pa.bool_()}
    schema = pa.schema([(name, types.get(kind) or kind) for name, (kind, _) in COLUMNS.items()])
    lines = [json.dumps(as_row(quote), default=_in_milliseconds) for quote in quotes]
    content = BytesIO("\n".join(lines or ["{}"]).encode())  # a line more: there must be one
    options = pa.json.ParseOptions(explicit_schema=_with_numbers(schema))
    table = pa.json.read_json(content, parse_options=options).cast(schema).slice(0, len(quotes))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def _records(content: bytes) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(BytesIO(content)).read()  # `read_table` imports twice as much
    for row in table.cast(_with_numbers(table.schema)).to_pylist():
        instants = {
            name: _EPOCH + timedelta(milliseconds=row[name])
            for name in _INSTANTS
            if row.get(name) is not None
        }
        yield {**row, **instants}


def _with_numbers(schema: Any) -> Any:
    import pyarrow as pa

    return pa.schema([(f.name, pa.int64() if f.name in _INSTANTS else f.type) for f in schema])


def _in_milliseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(milliseconds=1)
