"""Writes the rows of a window as a Parquet file, and reads them if every value is valid."""

from dataclasses import MISSING, fields

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from market_data_pipeline.market.quote import COLUMNS, ROWS, Quote, as_row, merge
from market_data_pipeline.market.windows import LONGEST_INTERVAL, start_of

_TYPES = {"timestamp": pa.timestamp("ms", tz="UTC")}
_SCHEMA = pa.schema(
    pa.field(name, _TYPES.get(kind) or kind, metadata={"description": text})
    for name, (kind, text) in COLUMNS.items()
)
_OLDEST_COLUMNS = [each.name for each in fields(Quote) if each.default is MISSING]


class DamagedFileError(Exception):
    """A file does not hold the rows of its window; the text says why, in a few words."""


def encode(quotes: list[Quote]) -> bytes:
    """The rows of a window as a Parquet file."""
    table = pa.Table.from_pylist([as_row(quote) for quote in quotes], schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    return bytes(sink.getvalue())


def decode(content: bytes, key: str) -> list[Quote]:
    """The rows of a Parquet file, merged; those of older versions have fewer columns.

    Args:
        content: the file.
        key: the key of the window that all rows must belong to.

    Raises:
        DamagedFileError: it is not such a file, or a value is invalid.
    """
    try:
        quotes = ROWS.validate_python(_records(content))
        start = start_of(key)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        (row, column), said = first["loc"], first["msg"].partition(" ")[2]  # `Input should be …`
        raise DamagedFileError(f"row {int(row) + 1}: {column} {said}") from None
    except Exception as error:  # PyArrow has many kinds of them
        raise DamagedFileError(str(error).partition("\n")[0].rstrip(".")) from None
    for number, quote in enumerate(quotes, 1):
        if not quote.window_start == start < quote.window_end <= start + LONGEST_INTERVAL:
            raise DamagedFileError(f"row {number} is of another window")
    return merge(quotes)


def _records(content: bytes) -> list[dict[str, object]]:
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    names = file.schema_arrow.names
    for name in _OLDEST_COLUMNS:
        if name not in names:
            raise DamagedFileError(f"it has no column {name}")
    records: list[dict[str, object]] = file.read([*filter(COLUMNS.get, names)]).to_pylist()
    return records
