"""Documents into a collection, in batches, told apart into new, changed and the same."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, ReplaceOne, UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from dagster_mongo.documents import Document
from dagster_mongo.errors import MongoBulkWriteError
from dagster_mongo.settings import Settings

Fields = dict[str, Any]
Write = UpdateOne | ReplaceOne[Any]


def upsert(
    collection: Collection[Fields], documents: Sequence[Document], settings: Settings
) -> Counter[str]:
    """Write each document, in place of the one with its id or as a new one, each atomically.

    Returns:
        How many were `inserted`, `replaced` and `unchanged`. Counted here, by comparing with what
        was there: not every server that speaks MongoDB's protocol counts right.

    Raises:
        MongoBulkWriteError: The server refused some documents; the others are written.
    """
    counts: Counter[str] = Counter(inserted=0, replaced=0, unchanged=0)
    now = datetime.now(UTC)
    for start in range(0, len(documents), settings.batch_size):
        batch = documents[start : start + settings.batch_size]
        stored = _stored(collection, batch)
        plans = [_plan(document, stored.get(document.id), settings, now) for document in batch]
        try:
            collection.bulk_write([write for _, write in plans], ordered=False)
        except BulkWriteError as error:
            ids = [document.id for document in batch]
            raise MongoBulkWriteError(collection.name, error.details or {}, ids) from None
        counts.update(outcome for outcome, _ in plans)
    return counts


def delete_others(
    collection: Collection[Fields], query: Fields, ids: set[Any], batch_size: int
) -> int:
    """Delete what the query matches and `ids` has not, and say how many that were."""
    found = (document["_id"] for document in collection.find(query, {"_id": 1}))
    # A sub-document can be an id, but never one that was stored here.
    stale = [id for id in found if isinstance(id, dict) or id not in ids]
    for start in range(0, len(stale), batch_size):
        batch = {"_id": {"$in": stale[start : start + batch_size]}}
        collection.delete_many({"$and": [query, batch]})
    return len(stale)


def ensure_indexes(
    collection: Collection[Fields], declared: Sequence[IndexModel], partition_fields: Sequence[str]
) -> None:
    """Make what is missing: the declared indexes, and one to find a partition by.

    The second only if no declared index begins with a partition field.
    """
    indexes = list(declared)
    leading = {next(iter(index.document["key"])) for index in indexes}
    if partition_fields and not leading & set(partition_fields):
        indexes.append(IndexModel([(field, 1) for field in partition_fields]))
    if indexes:
        collection.create_indexes(indexes)


def _stored(collection: Collection[Fields], batch: Sequence[Document]) -> dict[Any, Fields]:
    found = collection.find({"_id": {"$in": [document.id for document in batch]}})
    return {document["_id"]: document for document in found}


def _plan(
    document: Document, old: Fields | None, settings: Settings, now: datetime
) -> tuple[str, Write]:
    """What a write will turn out to be, and the write."""
    query, body = {"_id": document.id}, RawBSONDocument(document.body)
    created = settings.created_at
    if old is None:
        if not created:
            return "inserted", ReplaceOne(query, body, upsert=True)
        # Should another writer be first, its moment of creation stays.
        update = {"$set": body, "$setOnInsert": {created: now}}
        return "inserted", UpdateOne(query, update, upsert=True)

    new = bson.decode(document.body)
    may_change = settings.may_change | {created}
    same = {k: v for k, v in old.items() if k not in may_change} == {
        k: v for k, v in new.items() if k not in may_change
    }
    replacement = _as_inserted({**new, created: old.get(created, now)}) if created else body
    return "unchanged" if same else "replaced", ReplaceOne(query, replacement, upsert=True)


def _as_inserted(fields: Fields) -> Fields:
    """The fields in the order of an update's, by name: that is how they were first written."""
    return {"_id": fields["_id"], **dict(sorted(fields.items()))}
