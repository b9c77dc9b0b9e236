"""The `_id` of a document, made of its key or of its content."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import bson
from bson import ObjectId

from dagster_mongo.codec import CODEC, NO_BSON, of_numpy
from dagster_mongo.errors import MongoFrameError

__all__ = ["as_utc", "content_ids", "identity", "key_ids"]

_SHOWN = 5
# Text that reads like another type's text, or like quoted text, is quoted.
_AMBIGUOUS = re.compile(
    r'".*|true|false|-?(\d+(\.\d*)?([eE][+-]?\d+)?|inf)|\d{4}-\d\d-\d\dT[\d:.]+Z|[0-9a-f]{24}',
    re.DOTALL,
)


def key_ids(rows: Sequence[Mapping[str, Any]], key: Sequence[str]) -> list[Any]:
    """The ids of rows that have a key.

    A key of one column is the id itself, with its type. A key of several is a text of all parts,
    `a1|2026-01-01T00:00:00Z`, in which different values of different types differ: text that
    looks like a number, a date or an ObjectId is quoted. A whole number is the same key whether
    it is an integer or a float.

    Raises:
        MongoFrameError: A field is missing, a value cannot be part of a key, or two rows have the
            same key.
    """
    if missing := [name for name in key if not any(name in row for row in rows)]:
        raise MongoFrameError(f"There is no key column {missing[0]!r}.")
    columns = {name: [as_utc(row.get(name)) for row in rows] for name in key}
    if tuple(key) == ("_id",):
        ids = list(columns["_id"])
        if None in ids:
            raise MongoFrameError(f"Row {ids.index(None)} has no _id, and others have one.")
    elif len(key) == 1:
        ids = [_single(key[0], value) for value in columns[key[0]]]
    else:
        parts = [[_text(name, value) for value in columns[name]] for name in key]
        ids = list(map("|".join, zip(*parts, strict=True)))
    _refuse_repeated(ids, key)
    return ids


def content_ids(bodies: Iterable[bytes]) -> list[ObjectId]:
    """An ObjectId of each row, BSON with sorted fields; equal rows get different ones."""
    ids = []
    seen: Counter[bytes] = Counter()
    for body in bodies:
        digest = blake2b(body, digest_size=12).digest()
        seen[digest] += 1
        if (times := seen[digest]) > 1:
            digest = blake2b(body + times.to_bytes(8, "big"), digest_size=12).digest()
        ids.append(ObjectId(digest))
    return ids


def identity(id: Any) -> Hashable:
    """What is equal for two ids exactly if the server takes them for the same id.

    Raises:
        MongoFrameError: BSON has no such value.
    """
    if isinstance(id, str | ObjectId):
        return id
    if isinstance(id, int | float | Decimal) and not isinstance(id, bool):
        return (float, id if id == id else "NaN")
    try:
        return bson.encode({"": id}, codec_options=CODEC)
    except NO_BSON as error:
        raise MongoFrameError(f"{id!r} cannot be an _id: {str(error).rstrip('.')}.") from None


def as_utc(value: Any) -> Any:
    """A value as MongoDB has it: a date in UTC, to the millisecond; any other as it is.

    Raises:
        MongoFrameError: It is a value of NumPy, or a date in UTC, that Python has none for.
    """
    try:
        value = of_numpy(value)
    except TypeError as error:
        raise MongoFrameError(f"{error}.") from None
    if not isinstance(value, datetime):
        return value
    if value != value:  # pandas's NaT
        return None
    try:
        moment = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:
        raise MongoFrameError(f"{value!r} is no date in UTC that Python has.") from None
    if type(moment) is not datetime:  # pandas's has nanoseconds, too
        moment = datetime.combine(moment.date(), moment.time(), UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _refuse_repeated(ids: Sequence[Any], key: Sequence[str]) -> None:
    counts = Counter(map(identity, ids))
    if len(counts) == len(ids):
        return
    repeated = {identity(id): id for id in ids if counts[identity(id)] > 1}
    shown = ", ".join(repr(id) for id in list(repeated.values())[:_SHOWN])
    rest = f" and {len(repeated) - _SHOWN} more" if len(repeated) > _SHOWN else ""
    raise MongoFrameError(f"Several rows have the same key {list(key)}: {shown}{rest}.")


def _single(name: str, value: Any) -> Any:
    _text(name, value)  # raises what cannot be a key
    return int(value) if _is_whole(value) else value


def _text(name: str, value: Any) -> str:
    """A part of a key as text: dates in UTC, separators escaped."""
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace("|", "\\|")
        return f'"{text}"' if _AMBIGUOUS.fullmatch(value) else text
    if isinstance(value, datetime):
        precision = "milliseconds" if value.microsecond else "auto"
        return value.replace(tzinfo=None).isoformat(timespec=precision) + "Z"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | ObjectId):
        return str(value)
    if isinstance(value, float) and value == value:
        return str(int(value)) if _is_whole(value) else repr(value)
    raise MongoFrameError(
        f"Key column {name!r} holds {value!r}. A key is text, a number, a date, a truth value or"
        " an ObjectId."
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer() and abs(value) < 2**63
