"""Lists of dicts in collections: documents as they are."""

from collections.abc import Mapping
from typing import Any

from pymongo.collection import Collection

from dagster_mongo.base import MongoIOManager, Place, Rows
from dagster_mongo.errors import MongoFrameError
from dagster_mongo.settings import Reading

__all__ = ["MongoDocumentsIOManager"]


class MongoDocumentsIOManager(MongoIOManager):
    """Keeps an asset's list of dicts in a collection, each dict as a document.

    The metadata of an asset and of an input is that of the other I/O managers. Every type that
    BSON has is kept, nested values and the order of the fields too. The `_id` of the dicts is that
    of the documents; without one, and without `mongo/key`, it is an ObjectId made of the content.
    Loaded documents have all of their fields, also `_id` and those that the store sets. Datetimes
    are loaded in UTC and to the millisecond; those without a zone are stored as UTC. Decimals are
    `decimal.Decimal`. UUIDs are kept in the standard representation. A `date` or a set is refused.
    """

    @property
    def _library(self) -> str:
        return "documents"

    def _content(self, obj: Any, place: Place) -> tuple[Rows, None]:
        return _documents(obj), None

    def _load(
        self, collection: Collection[dict[str, Any]], place: Place, reading: Reading
    ) -> list[dict[str, Any]]:
        query = reading.filter(place.part.query() if place.part else {})
        return list(collection.find(query, reading.projection()))


def _documents(obj: object) -> Rows:
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
