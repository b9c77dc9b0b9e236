"""Columns to encoded documents with their ids."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from itertools import repeat
from typing import Any, NamedTuple

import bson
from bson import ObjectId
from bson.errors import BSONError

from dagster_mongo.errors import MongoFrameError
from dagster_mongo.settings import Settings

_LARGEST = 16 * 1024 * 1024
_SHOWN = 5


class Document(NamedTuple):
    """A document's id, and the whole of it as BSON."""

    id: Any
    body: bytes


def to_documents(
    columns: Mapping[str, Sequence[Any]], settings: Settings, run_id: str
) -> list[Document]:
    """Encode the rows of a frame.

    Args:
        columns: Its columns as BSON values, all equally long.
        settings: Which columns are the key. Without any, a row's content identifies it.
        run_id: What the field of that name gets.

    Raises:
        MongoFrameError: Two rows have one key, a key is null, or BSON has no such value.
    """
    if not any(columns.values()):
        return []
    managed = {settings.created_at, settings.run_id} & columns.keys()
    if managed:
        raise MongoFrameError(f"Column {managed.pop()!r} is set by the store, by its metadata.")
    if "_id" in columns and settings.key != ("_id",):
        raise MongoFrameError("The DataFrame has a column _id: then mongo/key has to be ['_id'].")
    ids = (
        _key_ids(columns, settings.key)
        if settings.key
        else _content_ids(columns, settings.may_change)
    )
    fields: dict[str, Iterable[Any]] = {"_id": ids, **columns}
    if settings.run_id:
        fields[settings.run_id] = repeat(run_id)
    return [Document(*pair) for pair in zip(ids, _encoded(fields), strict=True)]


def _encoded(columns: Mapping[str, Iterable[Any]]) -> Iterator[bytes]:
    for number, row in enumerate(zip(*columns.values(), strict=False)):
        try:
            body = bson.encode(dict(zip(columns, row, strict=True)))
        except (BSONError, OverflowError, TypeError, ValueError) as error:
            raise MongoFrameError(f"Row {number} cannot be a document: {error}.") from None
        if len(body) > _LARGEST:
            raise MongoFrameError(f"Row {number} has {len(body)} bytes, MongoDB takes {_LARGEST}.")
        yield body


def _key_ids(columns: Mapping[str, Sequence[Any]], key: Sequence[str]) -> list[Any]:
    if missing := [name for name in key if name not in columns]:
        raise MongoFrameError(f"The DataFrame has no key column {missing[0]!r}.")
    parts = [[_key_part(name, value) for value in columns[name]] for name in key]
    joined = list(map("|".join, zip(*parts, strict=True)))
    ids = list(columns["_id"]) if tuple(key) == ("_id",) else joined
    repeated = [id for id, count in Counter(ids).items() if count > 1]
    if repeated:
        shown = ", ".join(repr(id) for id in repeated[:_SHOWN])
        rest = f" and {len(repeated) - _SHOWN} more" if len(repeated) > _SHOWN else ""
        raise MongoFrameError(f"Several rows have the same key {list(key)}: {shown}{rest}.")
    return ids


def _key_part(name: str, value: Any) -> str:
    """A key's value as text: moments in UTC, separators escaped."""
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("|", "\\|")
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds" if value.microsecond else "auto") + "Z"
    if isinstance(value, bool | int | float | ObjectId):
        return str(value)
    raise MongoFrameError(
        f"Key column {name!r} holds {value!r}. A key is text, a number, a date or an ObjectId."
    )


def _content_ids(columns: Mapping[str, Sequence[Any]], may_change: set[str]) -> list[str]:
    """A hash of each row's content, however its columns are ordered; equal rows are numbered."""
    if not (identity := sorted(columns.keys() - may_change)):
        raise MongoFrameError("Every column is volatile: nothing tells one row from another.")
    ids = []
    seen: Counter[str] = Counter()
    for body in _encoded({name: columns[name] for name in identity}):
        digest = blake2b(body, digest_size=16).hexdigest()
        seen[digest] += 1
        ids.append(digest if seen[digest] == 1 else f"{digest}|{seen[digest]}")
    return ids
