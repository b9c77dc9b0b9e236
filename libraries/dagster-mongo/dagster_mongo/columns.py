"""Documents as the server sends them, to columns.

Each field's values are located in NumPy, without a Python object for each, and decoded when they
are asked for: numbers, dates and truth values in NumPy, any others by pymongo's own decoder.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Any, Literal

import bson
import numpy as np
from bson.errors import InvalidBSON
from numpy.typing import NDArray

from dagster_mongo.documents import CODEC, decimal_of, starts_of

__all__ = ["Column", "Kind", "to_columns"]

Kind = Literal["null", "bool", "int", "double", "date", "text", "mixed"]
Indices = NDArray[np.intp]
Bytes = NDArray[np.uint8]
# Where a field's elements begin: the rows that have it, and the positions.
_Found = defaultdict[bytes, list[tuple[Indices, Indices]]]

_LENGTH = Struct("<i")
_FEW = 32  # documents that are located one by one
_LONGEST_NAME = 500
_PADDING = b"\0" * (_LONGEST_NAME + 16)
_MOST_AT_ONCE = 2**28  # bytes that are decoded

_END, _DOUBLE, _TEXT, _BOOL, _DATE, _NULL, _REGEX, _INT32, _INT64 = 0, 1, 2, 8, 9, 10, 11, 16, 18
# The bytes of a value by its type: fixed, or beyond those that a length at its start counts.
_DECIMAL = 19
_FIXED = {_DOUBLE: 8, _BOOL: 1, _DATE: 8, _NULL: 0, _INT32: 4, _INT64: 8}
_FIXED |= {0x06: 0, 0x07: 12, 0x11: 8, _DECIMAL: 16, 0x7F: 0, 0xFF: 0}
_COUNTED = {_TEXT: 4, 0x03: 0, 0x04: 0, 0x05: 5, 0x0C: 16, 0x0D: 4, 0x0E: 4, 0x0F: 0}
_SIZES = np.full(256, -1, np.int64)
_SIZES[[*_FIXED, *_COUNTED]] = [*_FIXED.values(), *_COUNTED.values()]
_HAS_LENGTH = np.zeros(256, np.bool_)
_HAS_LENGTH[list(_COUNTED)] = True
_KINDS: tuple[tuple[Kind, set[int]], ...] = (
    ("null", set()),
    ("bool", {_BOOL}),
    ("int", {_INT32, _INT64}),
    ("double", {_DOUBLE}),
    ("date", {_DATE}),
    ("text", {_TEXT}),
)


@dataclass
class Column:
    """One field of all documents of a load.

    Attributes:
        size: The number of documents.
        data: The documents, one after the other.
        rows: Those in which the field is and is not null.
        elements: Where it begins in each of them.
        values: Where its value begins.
    """

    size: int
    data: bytes
    rows: Indices
    elements: Indices
    values: Indices

    @classmethod
    def absent(cls, size: int) -> "Column":
        """The column of a field that no document has."""
        nowhere = np.array([], np.intp)
        return cls(size, _PADDING, nowhere, nowhere, nowhere)

    @property
    def kind(self) -> Kind:
        """What all values are; "mixed" for any others than those that have a kind."""
        types = set(np.unique(self._types).tolist())
        return next((kind for kind, of_kind in _KINDS if types <= of_kind), "mixed")

    def arrays(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The values of a column of bool, int, double or date, and where they are missing.

        Dates are milliseconds since 1970; what is missing is 0.
        """
        values = self._numbers()
        missing = np.ones(self.size, np.bool_)
        missing[self.rows] = False
        placed = np.zeros(self.size, values.dtype)
        placed[self.rows] = values
        return placed, missing

    def to_list(self) -> list[Any]:
        """The values as pymongo decodes them, dates in UTC; None for a missing one."""
        if len(self.rows) == self.size and bool((np.diff(self.rows) > 0).all()):
            return self._decoded()
        listed: list[Any] = [None] * self.size
        for row, value in zip(self.rows.tolist(), self._decoded(), strict=True):
            listed[row] = value
        return listed

    @property
    def _types(self) -> Bytes:
        types: Bytes = _buffer(self.data)[self.elements]
        return types

    def _numbers(self) -> NDArray[Any]:
        kind, buffer = self.kind, _buffer(self.data)
        if kind == "bool":
            return np.asarray(buffer[self.values] != 0)
        if kind != "int":
            return _at(buffer, self.values, "<f8" if kind == "double" else "<i8")
        short = self._types == _INT32
        numbers = np.empty(len(short), np.int64)
        numbers[short] = _at(buffer, self.values[short], "<i4")
        numbers[~short] = _at(buffer, self.values[~short], "<i8")
        return numbers

    def _decoded(self) -> list[Any]:
        """All values at once, as elements of an array: nobody reads the names of those."""
        if set(np.unique(self._types).tolist()) == {_DECIMAL}:
            halves = (_at(_buffer(self.data), self.values + n, "<u8").tolist() for n in (0, 8))
            return list(map(decimal_of, *halves))
        ends = self.values + _sizes(self.data, self._types, self.values)
        sizes = np.cumsum(ends - self.elements)
        bounds = np.searchsorted(sizes, np.arange(_MOST_AT_ONCE, sum(sizes[-1:]), _MOST_AT_ONCE))
        values: list[Any] = []
        for part in np.split(np.stack([self.elements, ends], axis=1), bounds):
            body = b"".join([self.data[start:end] for start, end in part.tolist()])
            array = b"\4\0" + _LENGTH.pack(len(body) + 5) + body + b"\0"
            values += bson.decode(_LENGTH.pack(len(array) + 5) + array + b"\0", CODEC)[""]
        return values


def to_columns(batches: Iterable[bytes]) -> tuple[dict[str, Column], int]:
    """The columns of all documents in batches, in the order in which the fields appear.

    Args:
        batches: Each a sequence of BSON documents.

    Returns:
        The columns by name, and the number of documents.
    """
    documents = b"".join(batches)
    data = documents + _PADDING
    starts = np.array(starts_of(documents), np.intp)
    columns = {}
    for name, parts in _located(data, starts).items():
        rows, elements = (np.concatenate(each) for each in zip(*parts, strict=True))
        here = _buffer(data)[elements] != _NULL
        if not here.all():
            rows, elements = rows[here], elements[here]
        column = Column(len(starts), data, rows, elements, elements + len(name) + 2)
        columns[name.decode()] = column
    return columns, len(starts)


def _located(data: bytes, starts: Indices) -> _Found:
    """Where the elements of each field begin.

    Documents with the same fields in the same order are walked through together. Where they
    differ, each part goes on alone.
    """
    buffer = _buffer(data)
    found: _Found = defaultdict(list)
    together = [(np.arange(len(starts)), starts + 4)]
    while together:
        rows, at = together.pop()
        first = int(at[0]) if len(at) else 0
        kind, name = data[first], data[first + 1 : data.index(0, first + 1)]
        is_odd = len(name) > _LONGEST_NAME or (kind != _END and _SIZES[kind] < 0)
        if len(rows) < _FEW or is_odd:
            _locate_one_by_one(data, rows, at, found)
            continue
        same = buffer[at] == kind
        if kind != _END:
            same = _has_name(buffer, at, name) & (_SIZES[buffer[at]] >= 0)
        if not same.all():
            together.append((rows[~same], at[~same]))
            rows, at = rows[same], at[same]
        if kind != _END:
            found[name].append((rows, at))
            values = at + len(name) + 2
            together.append((rows, values + _sizes(data, buffer[at], values)))
    return found


def _locate_one_by_one(data: bytes, rows: Indices, at: Indices, found: _Found) -> None:
    by_name = defaultdict[bytes, list[tuple[int, int]]](list)
    for row, element in zip(rows.tolist(), at.tolist(), strict=True):
        while kind := data[element]:
            value = data.index(0, element + 1) + 1
            by_name[data[element + 1 : value - 1]].append((row, element))
            element = value + _size(data, kind, value)
    for name, pairs in by_name.items():
        few = np.array(pairs, np.intp)
        found[name].append((few[:, 0], few[:, 1]))


def _sizes(data: bytes, types: Bytes, values: Indices) -> NDArray[np.int64]:
    """The bytes of values, by their types."""
    sizes = _SIZES[types]
    counted = _HAS_LENGTH[types]
    sizes[counted] += _at(_buffer(data), values[counted], "<i4")
    for odd in np.flatnonzero(sizes < 0).tolist():
        sizes[odd] = _size(data, int(types[odd]), int(values[odd]))
    return sizes


def _size(data: bytes, kind: int, value: int) -> int:
    if kind in _FIXED:
        return _FIXED[kind]
    if kind in _COUNTED:
        return int(_COUNTED[kind] + _LENGTH.unpack_from(data, value)[0])
    if kind != _REGEX:
        raise InvalidBSON(f"there is no type {kind}")
    return data.index(0, data.index(0, value) + 1) + 1 - value  # two texts that end with a zero


def _buffer(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)


def _at(buffer: Bytes, positions: Indices, dtype: str) -> NDArray[Any]:
    """The values of a type that begin at positions, aligned or not."""
    size = np.dtype(dtype).itemsize
    everywhere = np.ndarray((len(buffer) - size + 1,), dtype, buffer.data, strides=(1,))
    values: NDArray[Any] = everywhere[positions]
    return values


def _has_name(buffer: Bytes, at: Indices, name: bytes) -> NDArray[np.bool_]:
    """Which elements have this name; none that are the end of a document."""
    same: NDArray[np.bool_] = buffer[at] != 0
    text = name + b"\0"
    for offset in range(0, len(text), 8):
        part = text[offset : offset + 8]
        mask = np.uint64((1 << 8 * len(part)) - 1)
        found = _at(buffer, at + 1 + offset, "<u8") & mask
        same &= found == np.uint64(int.from_bytes(part, "little"))
    return same
