"""The record of all quotes: one Parquet file a window, read by both sinks and by later windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from importlib import import_module
from threading import Thread
from uuid import uuid4

import dagster as dg
from pydantic import Field, PrivateAttr
from upath import UPath

from market_data_pipeline.asset_keys import QUOTES
from market_data_pipeline.quote import COLUMNS, Quote, as_row, by_window, from_row, merge
from market_data_pipeline.windows import start_of

_SUFFIX = ".parquet"


class MissingQuotesError(Exception):
    """A window was never stored; the text says which and what to do."""


class MadeUpPricesError(Exception):
    """Made-up prices were about to reach a database or a broker."""


class QuoteStore(dg.ConfigurableResource["QuoteStore"]):
    """Keeps the rows of each window in a Parquet file of its own, and merges what is added.

    A file appears whole or not at all. A window without a row has a file too: it was asked for.

    Example:
        ```python
        from market_data_pipeline.quote_store import QuoteStore

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
        """Finds the storage folder of the instance, and begins to load what reads the files.

        That takes as long as an answer of Brapi: a run loads it while it waits for those.
        """
        if not self.path and context.instance:
            self._default = context.instance.storage_directory()
        Thread(target=import_module, args=["pyarrow.parquet"]).start()

    @property
    def folder(self) -> UPath:
        """Where the files are."""
        return self.folder_of(QUOTES)

    def folder_of(self, key: dg.AssetKey) -> UPath:
        """Where the files of an asset are."""
        return UPath(self.path or self._default).joinpath(*key.path)

    def write(self, path: UPath, content: bytes) -> None:
        """Writes a file, which appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.protocol not in ("", "file", "local"):
            path.write_bytes(content)  # an object store shows an object whole or not at all
            return
        unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
        unfinished.write_bytes(content)
        unfinished.replace(path)

    def load(self, keys: Sequence[str]) -> list[Quote]:
        """The rows of some windows for a sink, in the order of the keys.

        Raises:
            MissingQuotesError: one of them was never stored.
            MadeUpPricesError: there are made-up prices among them, and none may leave.
        """
        stored = {key: self.stored(key) for key in keys}
        if missing := [key for key, rows in stored.items() if rows is None]:
            more = f" and {len(missing) - 1} more windows" if len(missing) > 1 else ""
            raise MissingQuotesError(
                f"There are no stored quotes for {missing[0]}{more} in {self.folder}: materialize "
                "`quotes` for them first."
            )
        quotes = [quote for rows in stored.values() for quote in rows or ()]
        if not self.publish_made_up_prices and any(quote.made_up for quote in quotes):
            raise MadeUpPricesError(
                f"The prices in {self.folder} are made up by a sandbox, so they go to no database "
                "and no broker: set BRAPI_TOKEN (and unset BRAPI_BASE_URL) for real ones, or "
                "PUBLISH_MADE_UP_PRICES=true for a database and a broker of tests."
            )
        return quotes

    def stored(self, key: str) -> list[Quote] | None:
        """The rows of one window; None if it was never stored."""
        import pyarrow.parquet as pq

        try:
            with (self.folder / f"{key}{_SUFFIX}").open("rb") as file:
                table = pq.ParquetFile(file).read()  # `read_table` imports twice as much
        except FileNotFoundError:
            return None
        return [from_row(row) for row in table.to_pylist()]

    def save(self, quotes: Iterable[Quote], keys: Sequence[str]) -> None:
        """Merges rows into those of their windows.

        Args:
            quotes: rows of windows among `keys`.
            keys: the windows that were asked for; those without a row are stored empty.
        """
        rows = by_window(quotes)
        for key in keys:
            there, new = self.stored(key), rows[start_of(key)]
            merged = merge(there or (), new)
            if merged != there:
                self.write(self.folder / f"{key}{_SUFFIX}", _parquet(merged))

    def last_trusted(
        self, tickers: Iterable[str], before: str, oldest: date, *, made_up: bool
    ) -> dict[str, Quote]:
        """The last trusted row of each ticker before a window, by the ticker.

        Args:
            tickers: symbols of the watchlist.
            before: the key of the window.
            oldest: the first day (São Paulo) that is looked at.
            made_up: whether made-up prices are looked for, or real ones.
        """
        wanted, found = set(tickers), dict[str, Quote]()
        keys = self.stored_keys(before, oldest)
        while wanted and (key := next(keys, None)):
            for quote in self.stored(key) or ():
                for ticker in wanted & {quote.requested_ticker, quote.ticker}:
                    if quote.trusted and quote.made_up == made_up:
                        found[ticker] = quote
            wanted -= found.keys()
        return found

    def stored_keys(self, before: str, oldest: date) -> Iterator[str]:
        """The stored windows before one (not included), from there back to a day, newest first."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return iter(())
        # All keys have the form of `before` and are local times: their order is that of time.
        stored = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        between = (key for key in stored if oldest.isoformat() <= key < before)
        return iter(sorted(between, reverse=True))


def _parquet(rows: list[Quote]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"timestamp": pa.timestamp("ms", tz="UTC"), "bool": pa.bool_()}
    schema = pa.schema([(name, types.get(kind) or kind) for name, (kind, _) in COLUMNS.items()])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([as_row(quote) for quote in rows], schema), sink)
    return bytes(sink.getvalue())
