"""Documents into a collection, in batches. The counts are those that the server answers."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne, ReplaceOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from dagster_mongo.documents import Document, with_date
from dagster_mongo.errors import MongoBulkWriteError
from dagster_mongo.keys import identity
from dagster_mongo.settings import Settings

__all__ = ["delete_others", "insert_anew", "upsert"]

Fields = dict[str, Any]
Write = InsertOne[Any] | ReplaceOne[Any]
_DUPLICATE_KEY = 11000
# Batches on their way at the same time: one is encoded while the server works on the other.
_WRITERS = 2


def upsert(
    collection: Collection[Fields], documents: Sequence[Document], settings: Settings
) -> Counter[str]:
    """Write each document in place of the one with its id or as a new one, each atomically.

    The ids that exist are read first, because an insertion costs the server a fifth of an upsert;
    with `mongo/created_at` also that field of them. An id that another writer inserts in between
    is noticed by the server, and replaced. Two batches are on their way at the same time.

    Returns:
        How many were `inserted`, `replaced` and `unchanged`: the server's own counts.

    Raises:
        MongoBulkWriteError: The server refused some documents; the others are written.
    """
    counts: Counter[str] = Counter(inserted=0, replaced=0, unchanged=0)
    now = datetime.now(UTC).replace(tzinfo=None)
    size = settings.batch_size
    with ThreadPoolExecutor(_WRITERS) as executor:
        writes = [
            executor.submit(
                _write_batch, collection, documents[start : start + size], settings, now
            )
            for start in range(0, len(documents), size)
        ]
        try:
            for write in writes:
                counts.update(write.result())
        finally:
            executor.shutdown(cancel_futures=True)
    return counts


def insert_anew(
    collection: Collection[Fields], query: Fields, documents: Sequence[Document], batch_size: int
) -> Counter[str]:
    """Delete what the query matches, and insert the documents: for time-series collections."""
    deleted = collection.delete_many(query).deleted_count
    counts: Counter[str] = Counter(inserted=0, deleted=deleted)
    for start in range(0, len(documents), batch_size):
        batch = documents[start : start + batch_size]
        writes: list[Write] = [InsertOne(RawBSONDocument(document.body)) for document in batch]
        try:
            result = collection.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            ids = [document.id for document in batch]
            raise MongoBulkWriteError(collection.name, error.details or {}, ids) from None
        counts["inserted"] += result.inserted_count
    return counts


def delete_others(
    collection: Collection[Fields],
    query: Fields,
    documents: Sequence[Document],
    batch_size: int,
) -> int:
    """Delete what the query matches and `documents` has not; return the server's count of it."""
    kept = {identity(document.id) for document in documents}
    found = (document["_id"] for document in collection.find(query, {"_id": 1}))
    stale = [id for id in found if identity(id) not in kept]
    deleted = 0
    for start in range(0, len(stale), batch_size):
        batch = {"_id": {"$in": stale[start : start + batch_size]}}
        chosen = {"$and": [query, batch]} if query else batch
        deleted += collection.delete_many(chosen).deleted_count
    return deleted


def _write_batch(
    collection: Collection[Fields], batch: Sequence[Document], settings: Settings, now: datetime
) -> Counter[str]:
    """Write a batch, and what another writer inserted meanwhile once more."""
    counts, error = _write(collection, batch, settings, now)
    if error and (inserted := _inserted_meanwhile(collection, batch, error)):
        more, error = _write(collection, inserted, settings, now)
        counts += more
    if error:
        raise error
    return counts


def _write(
    collection: Collection[Fields], batch: Sequence[Document], settings: Settings, now: datetime
) -> tuple[Counter[str], MongoBulkWriteError | None]:
    """Write a batch; return the counts, and what the server refused of it."""
    stored = _stored(collection, [document.id for document in batch], settings.created_at)
    writes = [_operation(document, stored, settings.created_at, now) for document in batch]
    error = None
    try:
        result: Mapping[str, Any] = collection.bulk_write(writes, ordered=False).bulk_api_result
    except BulkWriteError as refused:
        result = refused.details or {}
        ids = [document.id for document in batch]
        error = MongoBulkWriteError(collection.name, result, ids)
    modified = result.get("nModified", 0)
    counts = Counter(
        inserted=result.get("nInserted", 0) + result.get("nUpserted", 0),
        replaced=modified,
        unchanged=result.get("nMatched", 0) - modified,
    )
    return counts, error


def _stored(
    collection: Collection[Fields], ids: Sequence[Any], created_at: str | None
) -> dict[Hashable, Any]:
    """The ids that exist, each with its moment of creation where there is such a field."""
    projection = {"_id": True, **({created_at: True} if created_at else {})}
    found = collection.find({"_id": {"$in": ids}}, projection, batch_size=len(ids) + 1)
    return {identity(d["_id"]): d.get(created_at) if created_at else None for d in found}


def _operation(
    document: Document, stored: Mapping[Hashable, Any], created_at: str | None, now: datetime
) -> Write:
    key = identity(document.id)
    body = document.body
    if created_at:
        created = stored.get(key)
        body = with_date(body, created_at, created if isinstance(created, datetime) else now)
    if key not in stored:
        return InsertOne(RawBSONDocument(body))
    return ReplaceOne({"_id": document.id}, RawBSONDocument(body), upsert=True)


def _inserted_meanwhile(
    collection: Collection[Fields], batch: Sequence[Document], error: MongoBulkWriteError
) -> list[Document]:
    """The refused documents, if all were refused since their ids exist by now."""
    if any(failure["code"] != _DUPLICATE_KEY for failure in error.failures):
        return []
    refused = {identity(failure["_id"]) for failure in error.failures}
    existing = _stored(collection, [failure["_id"] for failure in error.failures], None)
    if not refused or refused - existing.keys():
        return []
    return [document for document in batch if identity(document.id) in refused]
