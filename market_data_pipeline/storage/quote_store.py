"""The record of all quotes: one Parquet file a window, read by both sinks and by later windows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg
from upath import UPath

from market_data_pipeline.market.quote import Quote, by_start, merge
from market_data_pipeline.market.windows import start_of
from market_data_pipeline.runs.common import QUOTES
from market_data_pipeline.runs.results import some
from market_data_pipeline.storage.reading import (
    QuoteStoreError,
    Reading,
    encode,
    errors_in_words,
    is_local,
)

# More than a window takes.
_ROOM = 2**15
# An unfinished file that is older (in seconds) is that of a run that was killed.
_STALE_AFTER = 3600


@dataclass(frozen=True)
class QuoteStore:
    """Keeps the rows of each window in a Parquet file of its own, and merges what is added.

    A file appears whole or not at all. A window without a row has a file too: it was asked for.

    Example:
        ```python
        from market_data_pipeline.storage.quote_store import QuoteStore

        rows = QuoteStore(path="s3://bucket/quotes").load(["2026-11-23T10:00-0300"])
        prices = {quote.ticker: quote.price for quote in rows}
        ```
    """

    path: str
    """Folder or fsspec address (such as s3://bucket/quotes) of the files."""
    publish_made_up_prices: bool = False
    """Let the made-up prices of a sandbox reach the database and the topic."""

    @property
    def folder(self) -> UPath:
        """Where the files are."""
        return self.folder_of(QUOTES)

    def folder_of(self, key: dg.AssetKey) -> UPath:
        """Where the files of an asset are."""
        with errors_in_words("found", self.path):
            folder = UPath(self.path)
            if is_local(folder):
                folder = UPath(Path(folder.path).expanduser())
            return folder.joinpath(*key.path)

    def reading(self) -> Reading:
        """What is stored, for one run to read."""
        return Reading(self.folder)

    def try_writing(self, windows: int) -> None:
        """Writes as much as some windows take, and removes it.

        Raises:
            QuoteStoreError: they cannot be written now.
        """
        folder = self.folder
        encode([])  # for its first table PyArrow imports pandas: now, rather than when prices wait
        if is_local(folder):
            with errors_in_words("written", folder):
                path = Path(folder.path)
                there = next(each for each in (path, *path.parents) if os.path.lexists(each))
                with _unfinished(there / "probe", os.urandom(_ROOM * windows)):
                    return
        self.write({folder / ".probe": os.urandom(_ROOM)})
        with suppress(Exception):  # the user may be allowed to write, but not to remove
            folder.fs.rm_file((folder / ".probe").path)

    def write(self, contents: Mapping[UPath, bytes]) -> None:
        """Writes files, each of which appears whole or not at all.

        Raises:
            QuoteStoreError: they cannot be written.
        """
        folder, parents = self.folder, {path.parent for path in contents}
        with errors_in_words("written", folder):
            if not folder.fs.async_impl:  # an object storage has no folders, only buckets
                for parent in parents:
                    parent.mkdir(parents=True, exist_ok=True)
            if not is_local(folder):
                # An object storage shows an object whole or not at all.
                folder.fs.pipe({path.path: content for path, content in contents.items()})
                return
            for parent in parents:
                _remove_stale(Path(parent.path))
            for path, content in contents.items():
                with _unfinished(Path(path.path), content) as unfinished:
                    unfinished.replace(path.path)

    def load(self, keys: Sequence[str]) -> list[Quote]:
        """The rows of some windows for a sink, in the order of the keys.

        Made-up rows that may not leave are left out, and named in the log.

        Raises:
            QuoteStoreError: as `Reading.all_rows_of`, or all prices are made up and none may leave.
        """
        quotes = self.reading().all_rows_of(keys)
        made_up = [quote for quote in quotes if quote.made_up]
        if self.publish_made_up_prices or not made_up:
            return quotes
        if len(made_up) == len(quotes):
            raise QuoteStoreError(
                f"The prices in {self.folder} are made up by a sandbox, so no database and no "
                "broker gets them: set BRAPI_TOKEN (and unset BRAPI_BASE_URL) for real ones, or "
                "PUBLISH_MADE_UP_PRICES=true for a test database and a test broker."
            )
        dg.get_dagster_logger().warning(
            f"Left out, because a sandbox made them up: {len(made_up)} of {len(quotes)} prices, of "
            f"{some(sorted({quote.ticker for quote in made_up}))}. Materialize "
            "`quotes` again for real ones."
        )
        return [quote for quote in quotes if not quote.made_up]

    def save(self, quotes: Iterable[Quote], keys: Sequence[str]) -> None:
        """Merges rows into those of their windows; a damaged file is replaced, and kept beside it.

        Args:
            quotes: rows of windows among `keys`.
            keys: the windows that were asked for; those without a row are stored empty.

        Raises:
            QuoteStoreError: the files cannot be read or written.
        """
        reading, rows, changed = self.reading(), by_start(quotes), dict[UPath, bytes]()
        for key, there in reading.windows(keys).items():
            merged = merge(there or (), rows[start_of(key)])
            if merged != there:
                changed[reading.path_of(key)] = encode(merged)
        for key in reading.damaged:
            _set_aside(reading.path_of(key))
        self.write(changed)


def _set_aside(path: UPath) -> None:
    """Renames a damaged file, so that it is not a window's and readers of Parquet skip it."""
    aside = path.with_name(f"_{path.name}.{uuid4().hex[:8]}.damaged")
    with errors_in_words("written", path.parent):
        # An object is overwritten next; the user may not be allowed to remove it.
        (path.fs.mv if is_local(path) else path.fs.cp_file)(path.path, aside.path)
    dg.get_dagster_logger().warning(f"{path} is damaged: it is kept as {aside.name}.")


@contextmanager
def _unfinished(path: Path, content: bytes) -> Iterator[Path]:
    """Writes a file beside the path, to be moved there; removes it at the end if it was not."""
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a full disk must be found before the move
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


def _remove_stale(folder: Path) -> None:
    """Removes the unfinished files of runs that were killed while they wrote."""
    for path in folder.glob(f".*.{'?' * len(uuid4().hex)}"):
        with suppress(FileNotFoundError):  # another run has removed it
            if path.stat().st_mtime < time.time() - _STALE_AFTER:
                path.unlink()
