"""How an asset is kept: the metadata of its definition, checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pymongo import IndexModel, WriteConcern
from pymongo.read_concern import ReadConcern

from dagster_mongo.errors import MongoSettingsError

__all__ = ["PREFIX", "Settings"]

PREFIX = "mongo/"


@dataclass(frozen=True)
class Settings:
    """The `mongo/` metadata of an asset or an output; the README explains each key."""

    collection: str
    mode: str = "replace"
    key: tuple[str, ...] = ()
    created_at: str | None = None
    run_id: str | None = None
    volatile: tuple[str, ...] = ()
    indexes: tuple[IndexModel, ...] = ()
    expire_after: Mapping[str, int] | None = None
    validator: Mapping[str, Any] | None = None
    time_series: Mapping[str, Any] | None = None
    write_concern: WriteConcern | None = None
    read_concern: ReadConcern | None = None
    batch_size: int = 10_000

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], default_collection: str) -> "Settings":
        """Read the settings of one asset.

        Args:
            metadata: The definition metadata; keys without the `mongo/` prefix are ignored.
            default_collection: The collection if the metadata names none.

        Raises:
            MongoSettingsError: A key is unknown or its value is of the wrong kind.
        """
        given = {k.removeprefix(PREFIX): v for k, v in metadata.items() if k.startswith(PREFIX)}
        known = [field.name for field in fields(cls)]
        if unknown := sorted(given.keys() - set(known)):
            raise MongoSettingsError(
                f"Unknown metadata {', '.join(PREFIX + name for name in unknown)}. Known are"
                f" {', '.join(PREFIX + name for name in known)}."
            )
        given.setdefault("collection", default_collection)
        return cls(**{name: _PARSERS[name](PREFIX + name, v) for name, v in given.items()})

    def __post_init__(self) -> None:
        if self.mode == "upsert" and not self.key:
            raise MongoSettingsError("Upsert mode needs mongo/key, the columns of the key.")
        managed = [name for name in (self.created_at, self.run_id) if name]
        if len(set(managed)) < len(managed) or set(managed) & {"_id", *self.key}:
            raise MongoSettingsError(
                "mongo/created_at and mongo/run_id name fields of their own, not the key's."
            )
        if clash := set(self.key) & set(self.volatile):
            raise MongoSettingsError(f"A key column cannot be volatile: {', '.join(clash)}.")
        if self.time_series and (self.mode != "replace" or self.key or self.created_at):
            raise MongoSettingsError(
                "A time-series collection has no unique _id: mongo/time_series goes with mongo/mode"
                " 'replace', without mongo/key and mongo/created_at."
            )

    @property
    def managed(self) -> set[str]:
        """The fields that the store sets itself."""
        return {name for name in (self.created_at, self.run_id) if name}


def _wrong(name: str, expected: str, value: object) -> MongoSettingsError:
    return MongoSettingsError(f"{name} is {expected}, not {value!r}.")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(name, "a name", value)
    return value


def _names(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v for v in value):
        raise _wrong(name, "a list of column names", value)
    return tuple(value)


def _mode(name: str, value: object) -> str:
    if value not in ("upsert", "replace"):
        raise _wrong(name, "'upsert' or 'replace'", value)
    return str(value)


def _batch_size(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(name, "a number of documents, at least 1", value)
    return value


def _write_concern(name: str, value: object) -> WriteConcern:
    options: dict[str, Any] = dict(value) if isinstance(value, Mapping) else {"w": value}
    try:
        concern = WriteConcern(**options)
    except (TypeError, ValueError) as error:
        raise _wrong(name, f"no write concern ({error})", value) from None
    if not concern.acknowledged:
        raise MongoSettingsError(f"{name} w=0 would hide every failed write.")
    return concern


def _read_concern(name: str, value: object) -> ReadConcern:
    if not isinstance(value, str) or not value:
        raise _wrong(name, "a level such as 'local' or 'majority'", value)
    return ReadConcern(value)


def _expire_after(name: str, value: object) -> Mapping[str, int]:
    expected = "one date field and the seconds after it, {'updated_at': 86400}"
    if not isinstance(value, Mapping) or len(value) != 1:
        raise _wrong(name, expected, value)
    field, seconds = next(iter(value.items()))
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 0:
        raise _wrong(name, expected, value)
    return {str(field): seconds}


def _validator(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not value:
        raise _wrong(name, "a query such as {'$jsonSchema': {…}}", value)
    return value


def _time_series(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not isinstance(value.get("timeField"), str):
        raise _wrong(name, "options with timeField, such as {'timeField': 'at'}", value)
    return value


def _indexes(name: str, value: object) -> tuple[IndexModel, ...]:
    expected = "a list of indexes, each [(field, 1 or -1), …] or {'keys': […], 'unique': …}"
    if not isinstance(value, list | tuple):
        raise _wrong(name, expected, value)
    try:
        return tuple(_index(index) for index in value)
    except (KeyError, TypeError, ValueError):
        raise _wrong(name, expected, value) from None


def _index(index: Any) -> IndexModel:
    options = dict(index) if isinstance(index, Mapping) else {"keys": index}
    keys = [(str(field), direction) for field, direction in options.pop("keys")]
    return IndexModel(keys, **options)


_PARSERS: Mapping[str, Callable[[str, Any], Any]] = {
    "collection": _text,
    "mode": _mode,
    "key": _names,
    "created_at": _text,
    "run_id": _text,
    "volatile": _names,
    "indexes": _indexes,
    "expire_after": _expire_after,
    "validator": _validator,
    "time_series": _time_series,
    "write_concern": _write_concern,
    "read_concern": _read_concern,
    "batch_size": _batch_size,
}
