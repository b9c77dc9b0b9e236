"""What an input asks for: the metadata of an input, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dagster_mongo.settings import prefixed, wrong

__all__ = ["Reading"]

_KNOWN = ("query", "sort", "limit")


@dataclass(frozen=True)
class Reading:
    """The metadata of an input; the README explains each key.

    Attributes:
        columns: The only columns to load; None for all.
        query: A filter that a document has to match, besides being in the partitions.
        sort: Fields with 1 or -1; empty for the order of the rows.
        limit: The most documents; 0 for all.
    """

    columns: tuple[str, ...] | None = None
    query: Mapping[str, Any] | None = None
    sort: tuple[tuple[str, int], ...] = ()
    limit: int = 0

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Reading":
        """Read the metadata of an input.

        Raises:
            MongoSettingsError: A key is unknown, or its value is of the wrong kind.
        """
        given = prefixed(metadata, _KNOWN)
        return cls(
            columns=_columns(metadata.get("columns")),
            query=_query(given.get("query")),
            sort=_sort(given.get("sort", ())),
            limit=_limit(given.get("limit", 0)),
        )

    def filter(self, partitions: Mapping[str, Any]) -> dict[str, Any]:
        """The query of these partitions and of the input together."""
        if not self.query:
            return dict(partitions)
        return {"$and": [partitions, self.query]} if partitions else dict(self.query)

    def projection(self, *more: str) -> dict[str, bool] | None:
        """The columns and some more fields, as the server takes them; None for all."""
        if self.columns is None:
            return None
        return {"_id": False, **dict.fromkeys([*self.columns, *more], True)}


def _columns(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = value if isinstance(value, list | tuple) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise wrong("columns", "a list of at least one column name", value)
    return tuple(names)


def _query(value: object) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise wrong("mongo/query", "a filter such as {'price': {'$gt': 0}}", value)
    return value


def _sort(value: object) -> tuple[tuple[str, int], ...]:
    pairs: Any = value if isinstance(value, list | tuple) else [value]
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or pair[1] not in (1, -1):
            raise wrong("mongo/sort", "a list of [field, 1 or -1]", value)
    return tuple((str(field), direction) for field, direction in pairs)


def _limit(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise wrong("mongo/limit", "a number of documents", value)
    return value
