"""The fields of many documents as columns, independent of any DataFrame library."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
from bson.datetime_ms import DatetimeMS
from numpy.typing import NDArray

__all__ = ["Chunk", "Column", "Kind"]

Kind = Literal["null", "bool", "int", "double", "date", "text", "mixed"]


@dataclass(frozen=True)
class Chunk:
    """One field of consecutive documents.

    Attributes:
        kind: What the values are. "null": there is none. "mixed": anything else than the others.
        values: An array for bool, int (int64), double and date (int64 milliseconds since 1970 in
            UTC), in which missing values are 0; a list for text and mixed; None for null.
        missing: Where the field is null or absent; None where it nowhere is, and for lists, in
            which None says it.
        size: The number of documents.
    """

    kind: Kind
    values: Any
    missing: NDArray[np.bool_] | None
    size: int

    def to_list(self) -> list[Any]:
        """The values as pymongo decodes them, dates naive in UTC; None for a missing one."""
        if self.kind == "null":
            return [None] * self.size
        if self.kind in ("text", "mixed"):
            return list(self.values)
        values = _dates(self.values) if self.kind == "date" else self.values.tolist()
        if self.missing is not None:
            for index in np.flatnonzero(self.missing).tolist():
                values[index] = None
        return values


@dataclass
class Column:
    """One field of all documents of a load, in chunks."""

    chunks: list[Chunk] = field(default_factory=list)
    size: int = 0

    def append(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.size += chunk.size

    def fill(self, size: int) -> None:
        """Append missing values until the column has this size."""
        if size > self.size:
            self.append(Chunk("null", None, None, size - self.size))

    @property
    def kind(self) -> Kind:
        """What all values are, "mixed" where chunks differ."""
        kinds = {chunk.kind for chunk in self.chunks} - {"null"}
        if len(kinds) > 1:
            return "mixed"
        return kinds.pop() if kinds else "null"

    def to_list(self) -> list[Any]:
        """The values as pymongo decodes them, dates naive in UTC; None for a missing one."""
        return [value for chunk in self.chunks for value in chunk.to_list()]

    def arrays(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The values of a column of the kind bool, int, double or date, and where they miss."""
        dtype = {"bool": np.bool_, "double": np.float64}.get(self.kind, np.int64)
        return (
            np.concatenate([_values(chunk, dtype) for chunk in self.chunks]),
            np.concatenate([_missing(chunk) for chunk in self.chunks]),
        )


def _values(chunk: Chunk, dtype: Any) -> NDArray[Any]:
    if chunk.kind == "null":
        return np.zeros(chunk.size, dtype)
    values: NDArray[Any] = chunk.values
    return values


def _missing(chunk: Chunk) -> NDArray[np.bool_]:
    if chunk.missing is not None:
        return chunk.missing
    return np.full(chunk.size, chunk.kind == "null")


def _dates(milliseconds: NDArray[np.int64]) -> list[Any]:
    moments = milliseconds.view("datetime64[ms]").tolist()
    return list(_beyond_datetime(moments))


def _beyond_datetime(moments: Sequence[Any]) -> Iterator[Any]:
    """A date outside the years 1 to 9999 is no `datetime`: pymongo has a type for it."""
    for moment in moments:
        yield moment if isinstance(moment, datetime) else DatetimeMS(moment)
