"""Batches of BSON documents, as the server sends them, to columns.

The documents of a batch that have the same fields in the same order are decoded together, field
by field, in NumPy, without a Python object for each value other than a text. What is rare is left
to pymongo's own decoder, and comes out the same.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from struct import Struct
from typing import Any, NamedTuple

import bson
import numpy as np
from bson import CodecOptions, Int64
from bson.codec_options import DatetimeConversion
from numpy.typing import NDArray

from dagster_mongo.columns import Chunk, Column
from dagster_mongo.documents import CODEC

__all__ = ["to_columns"]

Indices = NDArray[np.intp]
Bytes = NDArray[np.uint8]

_DATES_OF_ANY_YEAR: CodecOptions[dict[str, Any]] = CODEC.with_options(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_LENGTH = Struct("<i")
_MOST_LAYOUTS = 16
_LONGEST_NAME = 500
_PADDING = b"\0" * (_LONGEST_NAME + 16)

_DOUBLE, _TEXT, _BOOL, _DATE, _NULL, _INT32, _INT64 = 0x01, 0x02, 0x08, 0x09, 0x0A, 0x10, 0x12
# The bytes of a value by its type: fixed, or beyond those that a length at its start counts.
_FIXED = {_DOUBLE: 8, _BOOL: 1, _DATE: 8, _NULL: 0, _INT32: 4, _INT64: 8}
_FIXED |= {0x06: 0, 0x07: 12, 0x11: 8, 0x13: 16, 0x7F: 0, 0xFF: 0}
_COUNTED = {_TEXT: 4, 0x03: 0, 0x04: 0, 0x05: 5, 0x0D: 4, 0x0E: 4, 0x0F: 0}
_SIZES = np.full(256, -1, np.int64)
_SIZES[list(_FIXED)] = list(_FIXED.values())
_SIZES[list(_COUNTED)] = list(_COUNTED.values())
_HAS_LENGTH = np.zeros(256, np.bool_)
_HAS_LENGTH[list(_COUNTED)] = True


class _Field(NamedTuple):
    """A field of the documents of one layout: where its elements and their values are."""

    name: bytes
    types: Bytes
    elements: Indices
    values: Indices


class _Layout(NamedTuple):
    rows: Indices
    fields: list[_Field]


def to_columns(batches: Iterable[bytes]) -> tuple[dict[str, Column], int]:
    """The columns of all documents in batches, in the order in which the fields appear.

    The next batch is awaited while one is decoded.

    Args:
        batches: Each a sequence of BSON documents.

    Returns:
        The columns by name, and the number of documents.
    """
    columns: dict[str, Column] = {}
    rows = 0
    for batch in _ahead(iter(batches)):
        size, chunks = _decode(batch)
        for name, chunk in chunks.items():
            column = columns.setdefault(name, Column())
            column.fill(rows)
            column.append(chunk)
        rows += size
    for column in columns.values():
        column.fill(rows)
    return columns, rows


def _ahead(batches: Iterator[bytes]) -> Iterator[bytes]:
    with ThreadPoolExecutor(1) as executor:
        coming = executor.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = executor.submit(next, batches, None)
            yield batch


def _decode(batch: bytes) -> tuple[int, dict[str, Chunk]]:
    data = batch + _PADDING
    buffer = np.frombuffer(data, np.uint8)
    starts = np.array(_starts(batch), np.intp)
    layouts, odd = _layouts(data, buffer, starts)
    names = dict.fromkeys(field.name for layout in layouts for field in layout.fields)
    by_name = {name.decode(): _gathered(name, layouts, len(starts)) for name in names}
    chunks = {name: _chunk(data, buffer, field) for name, field in by_name.items()}
    for row in odd.tolist():
        start = int(starts[row])
        document = data[start : start + _LENGTH.unpack_from(data, start)[0]]
        for name, value in bson.decode(document, _DATES_OF_ANY_YEAR).items():
            _insert(chunks, name, row, value, len(starts))
    return len(starts), chunks


def _starts(batch: bytes) -> list[int]:
    starts, at, end = [], 0, len(batch)
    while at < end:
        starts.append(at)
        at += _LENGTH.unpack_from(batch, at)[0]
    return starts


def _layouts(data: bytes, buffer: Bytes, starts: Indices) -> tuple[list[_Layout], Indices]:
    """The documents by their layout, and those that are decoded one by one."""
    pending = [np.arange(len(starts))]
    layouts: list[_Layout] = []
    odd: list[Indices] = []
    while pending:
        rows = pending.pop()
        if len(layouts) == _MOST_LAYOUTS:
            odd.append(rows)
            continue
        layout, others = _walk(data, buffer, starts[rows] + 4, rows)
        if layout is None:
            odd.append(rows[:1])
            others = [rows[1:]] if len(rows) > 1 else []
        else:
            layouts.append(layout)
        if others:
            pending.append(np.concatenate(others))
    return layouts, np.concatenate(odd) if odd else np.array([], np.intp)


def _walk(
    data: bytes, buffer: Bytes, at: Indices, rows: Indices
) -> tuple[_Layout | None, list[Indices]]:
    """The layout of the first document, with all documents that share it, and the others.

    No layout where the first document has a type, a name or a repetition that is left to pymongo.
    """
    fields: list[_Field] = []
    others: list[Indices] = []
    while True:
        first = int(at[0])
        if data[first] == 0:
            same = buffer[at] == 0
        else:
            name = data[first + 1 : data.index(0, first + 1)]
            if len(name) > _LONGEST_NAME or any(field.name == name for field in fields):
                return None, []
            same = _has_name(buffer, at, name)
        if not same.all():
            others.append(rows[~same])
            rows, at = rows[same], at[same]
            fields = [_kept(field, same) for field in fields]
        if data[first] == 0:
            return _Layout(rows, fields), others
        types, values = buffer[at], at + len(name) + 2
        sizes = _SIZES[types]
        if sizes[0] < 0:
            return None, []
        known = sizes >= 0
        if not known.all():
            others.append(rows[~known])
            rows, at, values = rows[known], at[known], values[known]
            types, sizes = types[known], sizes[known]
            fields = [_kept(field, known) for field in fields]
        fields.append(_Field(name, types, at, values))
        counted = _HAS_LENGTH[types]
        if counted.any():
            sizes = sizes + np.where(counted, _at(buffer, values, "<i4"), 0)
        at = values + sizes


def _kept(field: _Field, rows: NDArray[np.bool_]) -> _Field:
    return _Field(field.name, field.types[rows], field.elements[rows], field.values[rows])


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


class _Cells(NamedTuple):
    """A field of all documents of a batch: of those that have it, by row."""

    rows: Indices
    types: Bytes
    elements: Indices
    values: Indices
    size: int


def _gathered(name: bytes, layouts: list[_Layout], size: int) -> _Cells:
    found = [(layout.rows, f) for layout in layouts for f in layout.fields if f.name == name]
    if len(found) == 1:
        rows, field = found[0]
        return _Cells(rows, field.types, field.elements, field.values, size)
    return _Cells(
        np.concatenate([rows for rows, _ in found]),
        np.concatenate([field.types for _, field in found]),
        np.concatenate([field.elements for _, field in found]),
        np.concatenate([field.values for _, field in found]),
        size,
    )


def _chunk(data: bytes, buffer: Bytes, cells: _Cells) -> Chunk:
    here = cells.types != _NULL
    if not here.all():
        rows, types, elements, values, size = cells
        cells = _Cells(rows[here], types[here], elements[here], values[here], size)
    kinds = set(np.unique(cells.types).tolist())
    missing = np.ones(cells.size, np.bool_)
    missing[cells.rows] = False
    nowhere = None if len(cells.rows) == cells.size else missing
    if not kinds:
        return Chunk("null", None, None, cells.size)
    if kinds == {_DOUBLE}:
        doubles = _placed(cells, _at(buffer, cells.values, "<f8"))
        return Chunk("double", doubles, nowhere, cells.size)
    if kinds == {_DATE}:
        milliseconds = _placed(cells, _at(buffer, cells.values, "<i8"))
        return Chunk("date", milliseconds, nowhere, cells.size)
    if kinds == {_BOOL}:
        return Chunk("bool", _placed(cells, buffer[cells.values] != 0), nowhere, cells.size)
    if kinds <= {_INT32, _INT64}:
        return Chunk("int", _placed(cells, _integers(buffer, cells)), nowhere, cells.size)
    if kinds == {_TEXT}:
        return Chunk("text", _texts(data, buffer, cells), None, cells.size)
    return Chunk("mixed", _decoded(data, buffer, cells), None, cells.size)


def _placed(cells: _Cells, values: NDArray[Any]) -> NDArray[Any]:
    """The values at their rows, zeros elsewhere."""
    placed = np.zeros(cells.size, values.dtype)
    placed[cells.rows] = values
    return placed


def _integers(buffer: Bytes, cells: _Cells) -> NDArray[np.int64]:
    short = cells.types == _INT32
    values = np.empty(len(short), np.int64)
    values[short] = _at(buffer, cells.values[short], "<i4")
    values[~short] = _at(buffer, cells.values[~short], "<i8")
    return values


def _texts(data: bytes, buffer: Bytes, cells: _Cells) -> list[Any]:
    starts = cells.values + 4
    ends = starts + _at(buffer, cells.values, "<i4") - 1
    texts = [data[i:j].decode() for i, j in zip(starts.tolist(), ends.tolist(), strict=True)]
    return _listed(cells, texts)


def _decoded(data: bytes, buffer: Bytes, cells: _Cells) -> list[Any]:
    """Values of any type, decoded by pymongo: each element as the only one of a document."""
    sizes = _SIZES[cells.types]
    lengths = np.where(_HAS_LENGTH[cells.types], _at(buffer, cells.values, "<i4"), 0)
    ends = cells.values + sizes + lengths
    values = []
    for start, end in zip(cells.elements.tolist(), ends.tolist(), strict=True):
        document = _LENGTH.pack(end - start + 5) + data[start:end] + b"\0"
        (value,) = bson.decode(document, _DATES_OF_ANY_YEAR).values()
        values.append(_plain(value))
    return _listed(cells, values)


def _listed(cells: _Cells, values: list[Any]) -> list[Any]:
    if len(values) == cells.size and bool((np.diff(cells.rows) > 0).all()):
        return values
    listed = [None] * cells.size
    for row, value in zip(cells.rows.tolist(), values, strict=True):
        listed[row] = value
    return listed


def _insert(chunks: dict[str, Chunk], name: str, row: int, value: Any, size: int) -> None:
    """Put a value into a chunk that is a list from now on."""
    chunk = chunks.get(name) or Chunk("null", None, None, size)
    if value is None:
        chunks.setdefault(name, chunk)
        return
    if chunk.kind != "mixed":
        chunk = chunks[name] = Chunk("mixed", chunk.to_list(), None, size)
    chunk.values[row] = _plain(value)


def _plain(value: Any) -> Any:
    """A value without pymongo's own type of integers, also within it."""
    if isinstance(value, Int64):
        return int(value)
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if type(value) is dict:
        return {name: _plain(inner) for name, inner in value.items()}
    return value
