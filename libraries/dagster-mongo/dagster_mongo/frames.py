"""DataFrames in collections. Their libraries are imported only when one is stored or loaded."""

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from pymongo.collection import Collection

from dagster_mongo.base import MongoIOManager, Place, Rows
from dagster_mongo.codec import CODEC
from dagster_mongo.errors import MongoFrameError, MongoLoadError
from dagster_mongo.keys import as_utc
from dagster_mongo.partitions import Slice
from dagster_mongo.schemas import Stored
from dagster_mongo.settings import ROW, Reading

__all__ = ["MongoPandasIOManager", "MongoPolarsIOManager"]


class _MongoFrameIOManager(MongoIOManager):
    @property
    def _frames(self) -> Any:
        """The module for DataFrames of the library. It imports that library."""
        return import_module(f"dagster_mongo.{self._library}_frames")

    def _content(self, obj: Any, place: Place) -> tuple[Rows, Stored]:
        columns, fields = self._frames.to_values(obj)
        if ROW in columns:
            raise MongoFrameError(f"Field {ROW!r} is set by the store: rename it.")
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        replaces_all = place.replaces and not place.part
        return rows, Stored(fields, columns, self._frames.widened, replaces_all)

    def _load(self, collection: Collection[dict[str, Any]], place: Place, reading: Reading) -> Any:
        from dagster_mongo.columns import columns_of, may_hold_dates

        part = place.part
        kept = self._schema(collection, place).load()
        query = reading.filter(part.query() if part else {})
        projection = reading.projection(ROW, *([part.field] if part else []))
        known = [kept.get(name) for name in reading.columns or kept] or [None]
        zoned = any(map(may_hold_dates, known))
        # To give a date its zone takes ten times as long as to decode it.
        naive = collection.with_options(codec_options=CODEC.with_options(tz_aware=False))
        documents = list((collection if zoned else naive).find(query, projection))
        columns = columns_of(documents)
        names = _names(columns, kept, reading, place)
        if not zoned and not {*names} <= kept.keys():  # others added fields of any kind
            documents = list(collection.find(query, projection))
            columns = columns_of(documents)
        rows = len(documents)
        if rows and (missing := [n for n in names if n not in columns and n not in kept]):
            raise MongoLoadError(f"No document has a field {missing[0]!r}.")
        dtypes = {name: kept.get(name) for name in names}
        return self._frames.to_frame(columns, rows, dtypes, _order(columns, part))


class MongoPandasIOManager(_MongoFrameIOManager):
    """Keeps an asset's pandas DataFrame in a collection, one document for each row.

    The metadata of an asset says how it is kept, and the metadata of an input what of it is
    loaded; the README has all keys. A DataFrame comes back with the dtypes that it was stored
    with, or, where those of several stores differ, with the dtypes that hold the values of all,
    and with a RangeIndex. Datetimes are kept to the millisecond; missing values of every kind are
    null.
    """

    @property
    def _library(self) -> str:
        return "pandas"


class MongoPolarsIOManager(_MongoFrameIOManager):
    """Keeps an asset's polars DataFrame in a collection, as `MongoPandasIOManager` a pandas one.

    Null is null and NaN is NaN. Time, Duration, Int128, Array and Object columns are refused.
    """

    @property
    def _library(self) -> str:
        return "polars"


def _names(
    found: Iterable[str], kept: Mapping[str, Any], reading: Reading, place: Place
) -> Sequence[str]:
    """The columns of the frame: those asked for, or those that are kept and then the others."""
    if reading.columns is not None:
        return reading.columns
    # What the store sets itself is no column of the frame, unless it is asked for.
    hidden = {ROW, *place.settings.managed, *({"_id"} - kept.keys())} if kept else {ROW}
    return [name for name in dict.fromkeys([*kept, *found]) if name not in hidden]


def _order(columns: Mapping[str, list[Any]], part: Slice | None) -> list[int] | None:
    """The order in which the rows were stored, partition by partition; None if it is that."""
    numbers = columns.get(ROW)
    if numbers is None:
        return None
    by: list[Any] = [n if isinstance(n, int) else math.inf for n in numbers]
    if part and len(part.keys) > 1 and part.field in columns:
        at = {key: index for index, key in enumerate(part.keys)}
        keys = part.partitions_of(map(as_utc, columns[part.field]))
        by = [(at.get(key or "", len(at)), row) for key, row in zip(keys, by, strict=True)]
    order = sorted(range(len(by)), key=by.__getitem__)
    return None if order == [*range(len(by))] else order
