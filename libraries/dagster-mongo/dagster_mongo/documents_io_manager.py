"""Lists of dicts in collections: documents as they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from bson import CodecOptions
from pymongo.collection import Collection

from dagster_mongo.base import Content, MongoIOManager, Place
from dagster_mongo.documents import CODEC, columns_of, from_mappings
from dagster_mongo.errors import MongoFrameError
from dagster_mongo.reading import Reading
from dagster_mongo.schemas import Schema
from dagster_mongo.settings import Settings

__all__ = ["MongoDocumentsIOManager"]

_AWARE: CodecOptions[dict[str, Any]] = CODEC.with_options(tz_aware=True)


class MongoDocumentsIOManager(MongoIOManager):
    """Keeps an asset's list of dicts in a collection, each dict as a document.

    The metadata of an asset and of an input is that of the other I/O managers. Every type that
    BSON has is kept, nested values and the order of the fields too. Loaded documents have all of
    their fields, also `_id` and those that the store sets. Datetimes are loaded with the time
    zone UTC and to the millisecond; those without a zone are stored as UTC. UUIDs are kept in
    the standard representation. A `Decimal`, `date`, set or NumPy value is refused: convert
    it, for example to `bson.Decimal128`.

    Example:
        ```python
        from datetime import UTC, datetime
        from typing import Any

        import dagster as dg
        from dagster_mongo import MongoDocumentsIOManager, MongoResource

        @dg.asset(
            metadata={
                "mongo/mode": "upsert",
                "mongo/key": ["_id"],
                "mongo/created_at": "created_at",
            }
        )
        def orders() -> list[dict[str, Any]]:
            return [{"_id": 1, "at": datetime.now(UTC), "lines": [{"sku": "a1", "pieces": 2}]}]

        @dg.asset(ins={"orders": dg.AssetIn(metadata={"mongo/query": {"lines.sku": "a1"}})})
        def orders_of_a1(orders: list[dict[str, Any]]) -> dg.MaterializeResult:
            return dg.MaterializeResult(metadata={"orders": len(orders)})

        mongo = MongoResource(uri=dg.EnvVar("MONGO_URI"), database="shop")
        defs = dg.Definitions(
            assets=[orders, orders_of_a1],
            resources={"io_manager": MongoDocumentsIOManager(mongo=mongo)},
        )
        ```
    """

    def handle_output(self, context: dg.OutputContext, obj: Sequence[Mapping[str, Any]]) -> None:
        """Store documents, as `MongoIOManager.handle_output` says. The list may be empty."""
        super().handle_output(context, obj)

    def load_input(self, context: dg.InputContext) -> list[dict[str, Any]]:
        """Load documents, as `MongoIOManager.load_input` says."""
        documents: list[dict[str, Any]] = super().load_input(context)
        return documents

    @property
    def _library(self) -> str:
        return "documents"

    def _content(
        self, obj: Any, place: Place, collection: Collection[dict[str, Any]], run_id: str
    ) -> Content:
        documents = _documents(obj)
        encoded = from_mappings(documents, place.settings, run_id)
        columns = columns_of(documents, place.part.fields if place.part else ())
        return Content(encoded, columns, None, {})

    def _load(
        self,
        collection: Collection[dict[str, Any]],
        query: dict[str, Any],
        reading: Reading,
        schema: Schema,
        settings: Settings,
    ) -> list[dict[str, Any]]:
        found = collection.with_options(codec_options=_AWARE).find(
            query, dict(reading.projection) if reading.projection else None, limit=reading.limit
        )
        return list(found.sort(list(reading.sort)) if reading.sort else found)


def _documents(obj: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(obj, list | tuple):
        raise MongoFrameError(f"A list of dicts can be stored, not a {type(obj).__name__}.")
    for number, document in enumerate(obj):
        if not isinstance(document, Mapping):
            raise MongoFrameError(
                f"A list of dicts can be stored, but item {number} is a {type(document).__name__}."
            )
        for name in document:
            if not isinstance(name, str) or not name or name[0] == "$" or "\0" in name:
                raise MongoFrameError(
                    f"Item {number} has the field {name!r}: a name is text that does not begin"
                    " with '$'."
                )
    return obj
