"""How an asset is kept, and what an input loads of it: the metadata of definitions, checked."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pymongo import IndexModel

from dagster_mongo.errors import MongoSettingsError

__all__ = ["PREFIX", "ROW", "Reading", "Settings", "without_prefix"]

PREFIX = "mongo/"
# The number of a row in the DataFrame that was stored: a collection has no order of its own.
ROW = "_row"


def _index(index: Any) -> IndexModel:
    options = dict(index) if isinstance(index, Mapping) else {"keys": index}
    try:
        keys = [(str(field), direction) for field, direction in options.pop("keys")]
        return IndexModel(keys, **options)
    except (KeyError, TypeError, ValueError):
        expected = "[(field, 1 or -1), …] or {'keys': […], 'unique': …}"
        raise ValueError(f"an index is {expected}, not {index!r}") from None


Name = Annotated[str, Field(min_length=1, strict=True)]
Names = tuple[Name, ...]


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @classmethod
    def _checked(cls, values: Mapping[str, Any]) -> Self:
        try:
            return cls(**values)
        except ValidationError as invalid:
            error = invalid.errors()[0]
            name = PREFIX + str(error["loc"][0])
            if error["type"] == "extra_forbidden":
                known = ", ".join(PREFIX + known for known in cls.model_fields)
                raise MongoSettingsError(f"Unknown metadata {name}. Known are {known}.") from None
            raise MongoSettingsError(
                f"{name} cannot be {values[str(error['loc'][0])]!r}: {error['msg']}."
            ) from None


class Settings(_Metadata):
    """The `mongo/` metadata of an asset or an output; the README explains each key."""

    collection: Name
    database: Name | None = None
    mode: Literal["upsert", "replace"] = "replace"
    key: Names = ()
    version: Name | None = None
    created_at: Name | None = None
    run_id: Name | None = None
    indexes: tuple[Annotated[Any, BeforeValidator(_index)], ...] = ()

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], default_collection: str) -> "Settings":
        """Read the settings of one asset.

        Args:
            metadata: The definition metadata; keys without the `mongo/` prefix are ignored, but for
                `schema`, which Dagster's other database I/O managers have for `mongo/database`.
            default_collection: The collection if the metadata names none.

        Raises:
            MongoSettingsError: A key is unknown, or the settings make no sense.
        """
        given = {"collection": default_collection}
        given |= {"database": metadata["schema"]} if "schema" in metadata else {}
        settings = cls._checked(given | _prefixed(metadata))
        managed = [name for name in (settings.run_id, settings.created_at) if name]
        taken = {"_id", ROW, settings.version, *settings.key}
        if len(set(managed)) < len(managed) or set(managed) & taken:
            raise MongoSettingsError(
                "mongo/created_at and mongo/run_id name fields of their own: not the key's, and not"
                f" {ROW!r}."
            )
        if settings.version and settings.mode != "upsert":
            raise MongoSettingsError(
                "mongo/version goes with mongo/mode 'upsert': 'replace' deletes what is not in the"
                " value, whatever its version."
            )
        return settings

    @property
    def managed(self) -> set[str]:
        """The fields that the store sets itself."""
        return {name for name in (self.run_id, self.created_at) if name}


class Reading(_Metadata):
    """The metadata of an input: the only columns to load, and a filter besides the partitions."""

    columns: Annotated[Names, Field(min_length=1)] | None = None
    query: dict[str, Any] = {}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Reading":
        """Read the metadata of an input.

        Raises:
            MongoSettingsError: A key is unknown, or its value is of the wrong kind.
        """
        given = _prefixed(metadata)
        if "columns" in metadata:  # as Dagster's other database I/O managers have it
            given["columns"] = metadata["columns"]
        return cls._checked(given)

    def filter(self, partitions: Mapping[str, Any]) -> dict[str, Any]:
        """The query of these partitions and of the input together."""
        if partitions and self.query:
            return {"$and": [partitions, self.query]}
        return {**partitions, **self.query}

    def projection(self, *more: str) -> dict[str, bool] | None:
        """The columns and some more fields, as the server takes them; None for all."""
        if self.columns is None:
            return None
        return {"_id": False, **dict.fromkeys([*self.columns, *more], True)}


def without_prefix(metadata: Mapping[str, Any]) -> list[str]:
    """The settings that are in the metadata without their prefix, so that they do nothing."""
    known = Settings.model_fields
    return [name for name in known if name in metadata and PREFIX + name not in metadata]


def _prefixed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(PREFIX): v for k, v in metadata.items() if k.startswith(PREFIX)}
