"""How an asset is kept: the metadata of its definition, checked."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pymongo import IndexModel

from dagster_mongo.errors import MongoSettingsError

__all__ = ["PREFIX", "Settings", "prefixed", "without_prefix", "wrong"]

PREFIX = "mongo/"


@dataclass(frozen=True)
class Settings:
    """The `mongo/` metadata of an asset or an output; the README explains each key."""

    collection: str
    database: str | None = None
    mode: str = "replace"
    key: tuple[str, ...] = ()
    version: str | None = None
    created_at: str | None = None
    run_id: str | None = None
    indexes: tuple[IndexModel, ...] = ()

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], default_collection: str) -> "Settings":
        """Read the settings of one asset.

        Args:
            metadata: The definition metadata; keys without the `mongo/` prefix are ignored, but for
                `schema`, which Dagster's other database I/O managers have for `mongo/database`.
            default_collection: The collection if the metadata names none.

        Raises:
            MongoSettingsError: A key is unknown or its value is of the wrong kind.
        """
        given = {"collection": default_collection}
        given |= {"database": metadata["schema"]} if "schema" in metadata else {}
        given |= prefixed(metadata, _PARSERS)
        return cls(**{name: _PARSERS[name](PREFIX + name, v) for name, v in given.items()})

    def __post_init__(self) -> None:
        managed = [name for name in (self.run_id, self.created_at) if name]
        if len(set(managed)) < len(managed) or set(managed) & {"_id", self.version, *self.key}:
            raise MongoSettingsError(
                "mongo/created_at and mongo/run_id name fields of their own, not the key's."
            )
        if self.version and self.mode != "upsert":
            raise MongoSettingsError(
                "mongo/version goes with mongo/mode 'upsert': 'replace' deletes what is not in the"
                " value, whatever its version."
            )

    @property
    def managed(self) -> set[str]:
        """The fields that the store sets itself."""
        return {name for name in (self.run_id, self.created_at) if name}


def prefixed(metadata: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The metadata with the prefix `mongo/`, without it.

    Raises:
        MongoSettingsError: There is a key that is not known.
    """
    given = {k.removeprefix(PREFIX): v for k, v in metadata.items() if k.startswith(PREFIX)}
    if unknown := sorted(given.keys() - set(known)):
        raise MongoSettingsError(
            f"Unknown metadata {', '.join(PREFIX + name for name in unknown)}. Known are"
            f" {', '.join(PREFIX + name for name in known)}."
        )
    return given


def without_prefix(metadata: Mapping[str, Any]) -> list[str]:
    """The settings that are in the metadata without their prefix, so that they do nothing."""
    known = [field.name for field in fields(Settings)]
    return [name for name in known if name in metadata and PREFIX + name not in metadata]


def wrong(name: str, expected: str, value: object) -> MongoSettingsError:
    """The error of metadata that is of the wrong kind."""
    return MongoSettingsError(f"{name} is {expected}, not {value!r}.")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise wrong(name, "a name", value)
    return value


def _names(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v for v in value):
        raise wrong(name, "a list of column names", value)
    return tuple(value)


def _mode(name: str, value: object) -> str:
    if value not in ("upsert", "replace"):
        raise wrong(name, "'upsert' or 'replace'", value)
    return str(value)


def _indexes(name: str, value: object) -> tuple[IndexModel, ...]:
    expected = "a list of indexes, each [(field, 1 or -1), …] or {'keys': […], 'unique': …}"
    if not isinstance(value, list | tuple):
        raise wrong(name, expected, value)
    try:
        return tuple(_index(index) for index in value)
    except (KeyError, TypeError, ValueError):
        raise wrong(name, expected, value) from None


def _index(index: Any) -> IndexModel:
    options = dict(index) if isinstance(index, Mapping) else {"keys": index}
    keys = [(str(field), direction) for field, direction in options.pop("keys")]
    return IndexModel(keys, **options)


_PARSERS: Mapping[str, Callable[[str, Any], Any]] = {
    "collection": _text,
    "database": _text,
    "mode": _mode,
    "key": _names,
    "version": _text,
    "created_at": _text,
    "run_id": _text,
    "indexes": _indexes,
}
