"""Rows to encoded documents, each with its id."""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import bson

from dagster_mongo.codec import CODEC, NO_BSON
from dagster_mongo.errors import MongoFrameError, MongoSettingsError
from dagster_mongo.keys import as_utc, content_ids, key_ids
from dagster_mongo.settings import Settings

__all__ = ["Document", "encode", "with_fields"]

_LARGEST = 16 * 1024 * 1024
_LENGTH = struct.Struct("<i")


class Document(NamedTuple):
    """A document's id, the whole of it as BSON, and the value of its `mongo/version` field."""

    id: Any
    body: bytes
    version: Any = None


def encode(rows: Sequence[Mapping[str, Any]], settings: Settings) -> list[Document]:
    """Encode rows as documents.

    Without a key, the `_id` of the rows is their identity, or else their content.

    Raises:
        MongoFrameError: Two rows have one key, a key is null, or BSON has no such value.
        MongoSettingsError: Rows without a key are to replace those with the same.
    """
    if not rows:
        return []
    names = set[str]().union(*rows)
    if taken := names & settings.managed:
        raise MongoFrameError(f"Field {min(taken)!r} is set by the store: rename it.")
    ids = _ids(rows, settings, "_id" in names)
    versions = _versions(rows, settings.version)
    whole = ({"_id": id, **row} for id, row in zip(ids, rows, strict=True))
    return list(map(Document, ids, _encoded(whole), versions))


def with_fields(body: bytes, fields: Mapping[str, Any]) -> bytes:
    """A document with more fields at its end."""
    more = bson.encode(fields)[4:-1]
    return _LENGTH.pack(len(body) + len(more)) + body[4:-1] + more + b"\0"


def _ids(rows: Sequence[Mapping[str, Any]], settings: Settings, has_id: bool) -> list[Any]:
    key = settings.key
    if has_id and key not in ((), ("_id",)):
        raise MongoFrameError("The rows have an _id: then mongo/key is ['_id'], or not set.")
    if key or has_id:
        return key_ids(rows, key or ["_id"])
    if settings.mode == "upsert":
        raise MongoSettingsError("Upsert mode needs mongo/key, or an _id in the rows.")
    return content_ids(_encoded({name: row[name] for name in sorted(row)} for row in rows))


def _versions(rows: Sequence[Mapping[str, Any]], name: str | None) -> list[Any]:
    if name is None:
        return [None] * len(rows)
    versions = [as_utc(row.get(name)) for row in rows]
    for number, version in enumerate(versions):
        is_number = isinstance(version, int | float | Decimal) and not isinstance(version, bool)
        if version != version or not (is_number or isinstance(version, str | datetime)):
            raise MongoFrameError(
                f"Row {number} has the version {version!r} in field {name!r}: a version is a"
                " number, a text or a date."
            )
    return versions


def _encoded(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    for number, row in enumerate(rows):
        try:
            body = bson.encode(row, codec_options=CODEC)
        except NO_BSON:
            raise MongoFrameError(f"Row {number} cannot be stored: {_reason(row)}.") from None
        if len(body) > _LARGEST:
            raise MongoFrameError(f"Row {number} has {len(body)} bytes, MongoDB takes {_LARGEST}.")
        yield body


def _reason(row: Mapping[str, Any]) -> str:
    """Which field BSON has no value for, and why."""
    for name, value in row.items():
        try:
            bson.encode({name: value}, codec_options=CODEC)
        except NO_BSON as error:
            return f"field {name!r}: {str(error).removeprefix('Invalid document: ').rstrip('.')}"
    return "it is no document"
