"""What an input asks for: the metadata of an input, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_mongo.errors import MongoSettingsError
from dagster_mongo.settings import PREFIX

__all__ = ["Reading"]

_KNOWN = ("query", "projection", "sort", "limit")


@dataclass(frozen=True)
class Reading:
    """The metadata of an input; the README explains each key.

    Attributes:
        query: A filter that a document has to match, besides being in the partitions.
        projection: What the server returns of a document; None for the whole.
        sort: Fields with 1 or -1; empty for no certain order.
        limit: The most documents; 0 for all.
    """

    query: Mapping[str, Any] | None = None
    projection: Mapping[str, Any] | None = None
    sort: Sequence[tuple[str, int]] = ()
    limit: int = 0

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Reading":
        """Read the metadata of an input.

        Raises:
            MongoSettingsError: A key is unknown, or its value is of the wrong kind.
        """
        given = {k.removeprefix(PREFIX): v for k, v in metadata.items() if k.startswith(PREFIX)}
        if unknown := sorted(given.keys() - set(_KNOWN)):
            raise MongoSettingsError(
                f"Unknown metadata {', '.join(PREFIX + name for name in unknown)} of an input."
                f" Known are columns, {', '.join(PREFIX + name for name in _KNOWN)}."
            )
        columns = metadata.get("columns")
        if columns is not None and "projection" in given:
            raise MongoSettingsError("An input has either columns or mongo/projection, not both.")
        return cls(
            query=_query(given.get("query")),
            projection=_projection(given.get("projection")) if columns is None else _of(columns),
            sort=_sort(given.get("sort", ())),
            limit=_limit(given.get("limit", 0)),
        )

    def filter(self, partitions: Mapping[str, Any]) -> dict[str, Any]:
        """The query of these partitions and of the input together."""
        if not self.query:
            return dict(partitions)
        return {"$and": [partitions, self.query]} if partitions else dict(self.query)

    @property
    def included(self) -> tuple[str, ...] | None:
        """The columns that the projection names, in its order. None if it names none."""
        if self.projection is None or self._excludes:
            return None
        names = dict.fromkeys(n.partition(".")[0] for n, v in self.projection.items() if v)
        if self.projection.get("_id", True):
            return tuple(names)
        return tuple(name for name in names if name != "_id")

    @property
    def excluded(self) -> frozenset[str]:
        """The columns that the projection leaves out."""
        if self.projection is None or not self._excludes:
            return frozenset()
        return frozenset(name for name in self.projection if "." not in name)

    @property
    def _excludes(self) -> bool:
        values = [v for name, v in (self.projection or {}).items() if name != "_id"]
        return not any(values) if values else not (self.projection or {}).get("_id", True)


def _wrong(name: str, expected: str, value: object) -> MongoSettingsError:
    return MongoSettingsError(f"{name} is {expected}, not {value!r}.")


def _of(columns: object) -> Mapping[str, Any]:
    expected = "a list of at least one column name"
    if not isinstance(columns, list | tuple) or not columns:
        raise _wrong("columns", expected, columns)
    if not all(isinstance(name, str) and name for name in columns):
        raise _wrong("columns", expected, columns)
    return {"_id": False, **dict.fromkeys(columns, True)}


def _query(value: object) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise _wrong("mongo/query", "a filter such as {'price': {'$gt': 0}}", value)
    return value


def _projection(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return {"_id": False, **dict.fromkeys(value, True)}
    if value is not None and (not isinstance(value, Mapping) or not value):
        raise _wrong("mongo/projection", "a list of fields or a mapping such as {'a': 1}", value)
    return value


def _sort(value: object) -> tuple[tuple[str, int], ...]:
    expected = "a list of [field, 1 or -1]"
    if not isinstance(value, list | tuple):
        raise _wrong("mongo/sort", expected, value)
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or pair[1] not in (1, -1):
            raise _wrong("mongo/sort", expected, value)
    return tuple((str(field), direction) for field, direction in value)


def _limit(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _wrong("mongo/limit", "a number of documents", value)
    return value
