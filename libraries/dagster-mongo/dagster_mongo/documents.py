"""Rows to encoded documents with their ids."""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import repeat
from typing import Any, NamedTuple

import bson
from bson import CodecOptions
from bson.binary import UuidRepresentation
from bson.errors import BSONError

from dagster_mongo.errors import MongoFrameError
from dagster_mongo.keys import content_ids, key_ids
from dagster_mongo.settings import Settings

__all__ = ["CODEC", "Document", "columns_of", "from_columns", "from_mappings", "with_date"]

# Dates within this library are naive and in UTC, whatever the client's own options are.
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict, tz_aware=False, uuid_representation=UuidRepresentation.STANDARD
)
_LARGEST = 16 * 1024 * 1024


class Document(NamedTuple):
    """A document's id, and the whole of it as BSON."""

    id: Any
    body: bytes


def from_columns(
    columns: Mapping[str, Sequence[Any]], settings: Settings, run_id: str
) -> list[Document]:
    """Encode the rows of a frame.

    Args:
        columns: Its columns as BSON values, all equally long.
        settings: Which columns are the key. Without any, a row's content identifies it.
        run_id: The value of the field that `mongo/run_id` names.

    Raises:
        MongoFrameError: Two rows have one key, a key is null, or BSON has no such value.
    """
    if not any(columns.values()):
        return []
    _refuse_reserved(columns.keys(), settings)
    fields: dict[str, Iterable[Any]] = dict(columns)
    ids: Iterable[Any] = repeat(None)
    if not settings.time_series:
        identity = sorted(columns.keys() - set(settings.volatile))
        content = {name: columns[name] for name in identity}
        ids = (
            key_ids(columns, settings.key)
            if settings.key
            else content_ids(columns, _encoded(_rows(content)), settings.volatile)
        )
        fields = {"_id": ids, **columns}
    if settings.run_id:
        fields[settings.run_id] = repeat(run_id)
    return list(map(Document, ids, _encoded(_rows(fields))))


def from_mappings(
    mappings: Sequence[Mapping[str, Any]], settings: Settings, run_id: str
) -> list[Document]:
    """Encode documents as they are, with an `_id` and the fields that the store sets.

    Raises:
        MongoFrameError: Two documents have one key, a key is null, or BSON has no such value.
    """
    if not mappings:
        return []
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    _refuse_reserved(names.keys(), settings)
    ids: Iterable[Any] = repeat(None)
    rows: Iterable[Mapping[str, Any]] = mappings
    if not settings.time_series:
        ids = (
            key_ids(columns_of(mappings, settings.key), settings.key)
            if settings.key
            else content_ids(names, _contents(mappings, settings.volatile), settings.volatile)
        )
        rows = ({"_id": id, **mapping} for id, mapping in zip(ids, mappings, strict=True))
    managed = {settings.run_id: run_id} if settings.run_id else {}
    return list(map(Document, ids, _encoded({**row, **managed} for row in rows)))


def columns_of(mappings: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, list[Any]]:
    """Some fields of documents as columns, dates naive in UTC; a name that none has is left out."""
    return {
        name: [_naive(mapping.get(name)) for mapping in mappings]
        for name in names
        if not mappings or any(name in mapping for mapping in mappings)
    }


def with_date(body: bytes, name: str, moment: datetime) -> bytes:
    """A document with one more field, a date (naive in UTC), at its end."""
    milliseconds = bson.encode({name: moment})[4:-1]
    return struct.pack("<i", len(body) + len(milliseconds)) + body[4:-1] + milliseconds + b"\0"


def _refuse_reserved(names: Iterable[str], settings: Settings) -> None:
    if managed := settings.managed & set(names):
        raise MongoFrameError(f"Field {min(managed)!r} is set by the store, as its metadata says.")
    if "_id" in names and settings.time_series is None and settings.key != ("_id",):
        raise MongoFrameError("There is a column _id: then mongo/key has to be ['_id'].")


def _naive(value: Any) -> Any:
    if isinstance(value, datetime):
        moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return value


def _rows(columns: Mapping[str, Iterable[Any]]) -> Iterator[dict[str, Any]]:
    names = tuple(columns)
    for row in zip(*columns.values(), strict=False):
        yield dict(zip(names, row, strict=True))


def _contents(mappings: Iterable[Mapping[str, Any]], volatile: Sequence[str]) -> Iterator[bytes]:
    return _encoded(
        {name: mapping[name] for name in sorted(mapping.keys() - set(volatile))}
        for mapping in mappings
    )


def _encoded(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    for number, row in enumerate(rows):
        try:
            body = bson.encode(row, codec_options=CODEC)
        except (BSONError, OverflowError, TypeError, ValueError) as error:
            reason = str(error).removeprefix("Invalid document: ").rstrip(".")
            raise MongoFrameError(f"Row {number} cannot be a document: {reason}.") from None
        if len(body) > _LARGEST:
            raise MongoFrameError(f"Row {number} has {len(body)} bytes, MongoDB takes {_LARGEST}.")
        yield body
