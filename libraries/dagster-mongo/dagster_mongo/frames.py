"""What the I/O managers of DataFrames have in common."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from pymongo.collection import Collection

from dagster_mongo.base import Content, MongoIOManager, Place, others_of
from dagster_mongo.documents import from_columns
from dagster_mongo.errors import MongoLoadError
from dagster_mongo.fields import Field, Widening
from dagster_mongo.reading import Reading
from dagster_mongo.schemas import Schema, Stored
from dagster_mongo.settings import Settings

if TYPE_CHECKING:
    from dagster_mongo.columns import Column

__all__ = ["MongoFrameIOManager"]

# Large enough that the server's time for a batch counts, small enough to decode one meanwhile.
_BATCH = 30_000


class MongoFrameIOManager(MongoIOManager):
    """The base of the I/O managers of DataFrames; use one of those."""

    @abstractmethod
    def _values(self, obj: Any) -> tuple[dict[str, list[Any]], dict[str, Field], Widening]:
        """The columns as BSON values, their dtypes, and the rules to merge these."""

    @abstractmethod
    def _frame(
        self, columns: Mapping[str, "Column"], rows: int, dtypes: Mapping[str, str | None]
    ) -> Any:
        """A DataFrame of columns with dtypes; one that is None follows from the values."""

    def _content(
        self, obj: Any, place: Place, collection: Collection[dict[str, Any]], run_id: str
    ) -> Content:
        columns, fields, widening = self._values(obj)
        documents = from_columns(columns, place.settings, run_id)
        replaces = place.settings.mode == "replace"
        others = others_of(collection, place.part, replaces)
        stored = Stored(fields, columns, widening, replaces and not place.part, others)
        return Content(documents, columns, stored, {n: str(f.dtype) for n, f in fields.items()})

    def _load(
        self,
        collection: Collection[dict[str, Any]],
        query: dict[str, Any],
        reading: Reading,
        schema: Schema,
        settings: Settings,
    ) -> Any:
        from dagster_mongo.raw_batches import to_columns

        kept = {name: field.dtype for name, field in schema.load().items()}
        batches = collection.find_raw_batches(
            query,
            dict(reading.projection) if reading.projection else None,
            sort=list(reading.sort) or None,
            limit=reading.limit,
            batch_size=_BATCH,
        )
        columns, rows = to_columns(cast("Iterable[bytes]", batches))
        names = _names(columns, kept, reading, settings)
        if reading.included is not None and rows:
            missing = [name for name in names if name not in columns and name not in kept]
            if missing:
                raise MongoLoadError(f"No document has a field {missing[0]!r}.")
        computed = reading.projection or {}
        dtypes = {
            name: kept.get(name) if computed.get(name, 1) in (0, 1) else None for name in names
        }
        return self._frame(columns, rows, dtypes)


def _names(
    found: Iterable[str], kept: Mapping[str, str | None], reading: Reading, settings: Settings
) -> list[str]:
    """The columns of the frame: those asked for, or those that are kept and then the others."""
    if reading.included is not None:
        asked = reading.included
        with_id = reading.projection is not None and "_id" not in reading.projection
        return [*(["_id"] if with_id and "_id" in kept else []), *asked]
    hidden = set(reading.excluded)
    if kept:
        # What the store sets itself is no column of the frame, unless it is asked for.
        hidden |= settings.managed | ({"_id"} - kept.keys())
    return [name for name in dict.fromkeys([*kept, *found]) if name not in hidden]
