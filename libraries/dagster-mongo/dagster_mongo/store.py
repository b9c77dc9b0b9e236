"""Documents into a collection, in batches."""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import bson
from bson import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne, ReplaceOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from dagster_mongo.codec import CODEC
from dagster_mongo.documents import Document, with_fields
from dagster_mongo.errors import MongoBulkWriteError, MongoFrameError
from dagster_mongo.keys import identity
from dagster_mongo.settings import ROW, Settings

__all__ = ["delete_others", "documents_there", "numbered", "refuse_ids_of_others", "upsert"]

Fields = dict[str, Any]
# Each document's `_id` and number, by what identifies it.
There = dict[Hashable, tuple[Any, int | None]]
Outcome = Literal["inserted", "replaced", "unchanged", "superseded"]

# A document that is there may have a date that Python cannot hold.
_ANY: CodecOptions[Fields] = CODEC.with_options(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_TEXT = 2
# Even with ids of some kilobytes, a query for all of a batch is no document that is too large.
_BATCH = 1_000
# How often a batch is looked at anew, if other writers write the same documents.
_TRIES = 10


class _Plan(NamedTuple):
    """What becomes of a document, and what has to be written for it."""

    outcome: Outcome
    write: InsertOne[Any] | ReplaceOne[Any] | None = None


def upsert(
    collection: Collection[Fields],
    documents: Sequence[Document],
    settings: Settings,
    managed: Mapping[str, Any],
) -> Counter[str]:
    """Write each document in place of the one with its id or as a new one, each atomically.

    What is there is read first: what is the same is not written, and the field of
    `mongo/created_at` is kept. With `mongo/version`, the server itself refuses to replace a
    document of a higher version, whoever writes it at the same time. Counts how many were
    `inserted`, `replaced`, `unchanged` and, with versions, `superseded`.

    Raises:
        MongoBulkWriteError: The server refused some documents; the others are written.
    """
    counts: Counter[str] = Counter(inserted=0, replaced=0, unchanged=0)
    if settings.version:
        counts["superseded"] = 0
    for batch in _batches(documents):
        counts.update(_write_batch(collection, batch, settings, managed))
    return counts


def refuse_ids_of_others(
    collection: Collection[Fields], documents: Sequence[Document], partitions: Fields
) -> None:
    """Refuse documents that another partition has under the same `_id`, before any is written.

    Raises:
        MongoFrameError: There is one.
    """
    for batch in _batches(documents):
        same = {"_id": {"$in": [document.id for document in batch]}}
        found = collection.find_one({"$and": [same, {"$nor": [partitions]}]}, {"_id": True})
        if found:
            raise MongoFrameError(
                f"A document of another partition has the _id {found['_id']!r} in the collection"
                f" {collection.name!r}: make the partition a part of the _id."
            )


def documents_there(collection: Collection[Fields], query: Fields) -> There:
    """The `_id` and the number of each document that a query matches."""
    found = ((each["_id"], each.get(ROW)) for each in collection.find(query, {ROW: True}))
    return {identity(id): (id, n if isinstance(n, int) else None) for id, n in found}


def numbered(documents: Sequence[Document], there: There) -> list[Document]:
    """Documents with numbers that tell their order.

    Those that are there keep theirs, if they are still in that order and all others follow.
    """
    numbers = [there.get(identity(document.id), (None, None))[1] for document in documents]
    known = [number for number in numbers if number is not None]
    first = max(known, default=-1) + 1
    kept = [*known, *range(first, first + len(documents) - len(known))]
    if sorted(set(known)) != known or numbers[: len(known)] != known:
        kept = list(range(len(documents)))
    return [
        document._replace(body=with_fields(document.body, {ROW: number}))
        for document, number in zip(documents, kept, strict=True)
    ]


def delete_others(
    collection: Collection[Fields], query: Fields, documents: Sequence[Document], there: There
) -> int:
    """Delete what is there and not among the documents; return the server's count of it."""
    stale = there.keys() - {identity(document.id) for document in documents}
    deleted = 0
    for batch in _batches([there[key][0] for key in stale]):
        chosen = {"$and": [query, {"_id": {"$in": batch}}]}
        deleted += collection.delete_many(chosen).deleted_count
    return deleted


def _batches(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]


def _write_batch(
    collection: Collection[Fields],
    batch: Sequence[Document],
    settings: Settings,
    managed: Mapping[str, Any],
) -> Counter[str]:
    """Write a batch, and look anew at what other writers inserted or raised meanwhile."""
    outcomes: list[Outcome] = []
    refused = None
    for _ in range(_TRIES):
        there = _existing(collection, batch)
        plans = [_plan(d, there.get(identity(d.id)), settings, managed) for d in batch]
        first = outcomes or [plan.outcome for plan in plans]
        outcomes = [
            "superseded" if plan.outcome == "superseded" else before
            for plan, before in zip(plans, first, strict=True)
        ]
        if not any(plan.write for plan in plans):
            return Counter(outcomes)
        refused = _write(collection, batch, plans)
        if refused is None:
            return Counter(outcomes)
        if not refused.is_of_other_writers:
            break
    assert refused is not None
    raise refused


def _write(
    collection: Collection[Fields], batch: Sequence[Document], plans: Sequence[_Plan]
) -> MongoBulkWriteError | None:
    """Write what is planned; return what the server refused of it."""
    planned = [(d, plan.write) for d, plan in zip(batch, plans, strict=True) if plan.write]
    try:
        collection.bulk_write([write for _, write in planned], ordered=False)
    except BulkWriteError as refused:
        ids = [document.id for document, _ in planned]
        return MongoBulkWriteError(collection.name, refused.details or {}, ids)
    return None


def _existing(collection: Collection[Fields], batch: Sequence[Document]) -> dict[Hashable, bytes]:
    query = {"_id": {"$in": [document.id for document in batch]}}
    found: Any = collection.find_raw_batches(query)
    return {identity(_id_of(body)): body for bodies in found for body in _split(bodies)}


def _split(bodies: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(bodies):
        end = start + int.from_bytes(bodies[start : start + 4], "little")
        yield bodies[start:end]
        start = end


def _id_of(body: bytes) -> Any:
    """The `_id`, which the server puts first; a text without decoding the others."""
    if body[4] == _TEXT:
        return body[13 : 12 + int.from_bytes(body[9:13], "little")].decode()
    return bson.decode(body, _ANY)["_id"]


def _plan(
    document: Document,
    there: bytes | None,
    settings: Settings,
    managed: Mapping[str, Any],
) -> _Plan:
    if there is None:
        return _Plan("inserted", InsertOne(RawBSONDocument(with_fields(document.body, managed))))
    if _is_same(document.body, there, managed):
        return _Plan("unchanged")
    query: Fields = {"_id": document.id}
    known = bson.decode(there, _ANY) if settings.version or settings.created_at else {}
    if settings.version:
        version = known.get(settings.version)
        if _is_higher(version, document.version):
            return _Plan("superseded")
        comparable = _is_higher(document.version, version) or version == document.version
        query[settings.version] = {"$lte": document.version} if comparable else version
    fields = dict(managed)
    if settings.created_at and isinstance(created := known.get(settings.created_at), datetime):
        fields[settings.created_at] = created
    body = RawBSONDocument(with_fields(document.body, fields))
    # An insertion, where the document was deleted meanwhile; where the version rose, the server
    # refuses it as a duplicate.
    return _Plan("replaced", ReplaceOne(query, body, upsert=True))


def _is_same(body: bytes, there: bytes, managed: Mapping[str, Any]) -> bool:
    """Whether a document is there, but for the fields that the store sets."""
    length = len(body) - 1
    if there[4:length] != body[4:length]:
        return False
    if not managed:
        return len(there) == len(body)
    rest = (len(there) - length + 4).to_bytes(4, "little") + there[length:]
    return bson.decode(rest, _ANY).keys() == managed.keys()


def _is_higher(version: Any, other: Any) -> bool:
    """Whether a version is above another; versions of different types are not."""
    try:
        return bool(version > other)
    except TypeError:
        return False
