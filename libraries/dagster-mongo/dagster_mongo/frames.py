"""DataFrames to BSON values and back. The only module that needs pandas."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain, islice
from typing import Any, cast

import numpy as np
import pandas as pd
from bson import Decimal128

from dagster_mongo.errors import MongoFrameError, MongoLoadError

Columns = dict[str, list[Any]]

_CHUNK = 10_000
_AS_THEY_ARE = frozenset({type(None), str, bool, int, bytes})
_NULLABLE = {"bool": "boolean"} | {
    kind.lower() + bits: kind + bits for kind in ("Int", "UInt") for bits in ("8", "16", "32", "64")
}
_HAS_STR_DTYPE = int(pd.__version__.split(".")[0]) >= 3


def dtypes_of(frame: pd.DataFrame) -> dict[str, str]:
    """The columns and their dtypes, as `to_frame` takes them."""
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def to_columns(frame: object) -> Columns:
    """A DataFrame's columns as values that BSON has: nulls are None, dates are naive UTC.

    Raises:
        MongoFrameError: It is no DataFrame, or a column's name or value does not fit a document.
    """
    if not isinstance(frame, pd.DataFrame):
        raise MongoFrameError(f"A pandas DataFrame can be stored, not a {type(frame).__name__}.")
    if not frame.columns.is_unique:
        raise MongoFrameError("Two columns of the DataFrame have the same name.")
    if any(name is not None for name in frame.index.names):
        raise MongoFrameError("The DataFrame has a named index: make it a column, reset_index().")
    for name in frame.columns:
        if not isinstance(name, str) or not name or name[0] == "$" or set(name) & {".", "\0"}:
            raise MongoFrameError(f"{name!r} is no name for a field: text without '.' and '$'.")
    return {name: _values(frame[name]) for name in frame.columns}


def _values(series: "pd.Series[Any]") -> list[Any]:
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(series.dtype, np.dtype):
        if series.dtype.kind == "M":
            milliseconds: list[Any] = series.dt.floor("ms").to_numpy("datetime64[ms]").tolist()
            return milliseconds
        if series.dtype.kind in "biuf":
            missing = series.dtype.kind == "f" and series.hasnans
            return [None if v != v else v for v in series.tolist()] if missing else series.tolist()
    try:
        return [_native(value) for value in series.tolist()]
    except TypeError as error:
        raise MongoFrameError(f"Column {series.name!r} cannot be stored: {error}.") from None


def _native(value: Any) -> Any:
    kind = type(value)
    if kind in _AS_THEY_ARE or kind.__module__.startswith("bson."):
        return value
    if value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, datetime):
        value = value.to_pydatetime(warn=False) if isinstance(value, pd.Timestamp) else value
        moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    if isinstance(value, dict):
        return {key: _native(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_native(inner) for inner in value]
    if isinstance(value, np.datetime64):
        return _native(pd.Timestamp(value))
    if isinstance(value, np.generic):
        return _native(value.item())
    if isinstance(value, Decimal):
        return Decimal128(value)
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"BSON has no {kind.__name__} ({value!r}); convert it first")


def to_frame(
    documents: Iterable[Mapping[str, Any]],
    dtypes: Mapping[str, str],
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """A DataFrame of documents.

    Args:
        documents: Decoded with naive UTC dates.
        dtypes: The dtype of each column; one that is not in it follows from its values.
        columns: The columns of the frame. Without them, those of `dtypes`; without these as well,
            every field that is found.

    Raises:
        MongoLoadError: A value does not fit its dtype, or no document has a column.
    """
    wanted = list(dtypes) if columns is None else list(columns)
    found, rows = _collect(documents, wanted)
    names = wanted or list(found)
    unknown = [name for name in names if name not in found and name not in dtypes]
    if unknown and rows:
        raise MongoLoadError(f"No document has a field {unknown[0]!r}.")
    return pd.DataFrame(
        {name: _series(name, found.pop(name, [None] * rows), dtypes.get(name)) for name in names},
        columns=names,
    )


def _collect(documents: Iterable[Mapping[str, Any]], wanted: list[str]) -> tuple[Columns, int]:
    """The values of each field that occurs, all columns equally long."""
    found: Columns = {}
    rows = 0
    remaining = iter(documents)
    while chunk := list(islice(remaining, _CHUNK)):
        present = dict.fromkeys(chain.from_iterable(chunk))
        for name in [n for n in wanted if n in present] if wanted else present:
            values = found.setdefault(name, [None] * rows)
            values.extend([document.get(name) for document in chunk])
        rows += len(chunk)
        for values in found.values():
            values.extend([None] * (rows - len(values)))
    return found, rows


def _series(name: str, values: list[Any], dtype: str | None) -> "pd.Series[Any]":
    dtype = dtype or _inferred(values)
    try:
        return cast("pd.Series[Any]", _typed(values, dtype))
    except (TypeError, ValueError, OverflowError) as error:
        raise MongoLoadError(
            f"Field {name!r} holds what does not fit its dtype {dtype}: {error}."
        ) from None


def _typed(values: list[Any], dtype: Any) -> Any:
    if dtype == "object":
        return pd.Series([_python(value) for value in values], dtype=object)
    if dtype.startswith("datetime64["):
        return _moments(values, dtype)
    if nullable := _NULLABLE.get(dtype):
        # It refuses what numpy would silently make an integer of.
        series = pd.Series(values, dtype=nullable)
        return series if series.hasnans else series.astype(dtype)
    if dtype == "str" and not _HAS_STR_DTYPE:
        return pd.Series(values, dtype=object)
    return pd.Series(values, dtype=dtype)


def _moments(values: list[Any], dtype: str) -> Any:
    if odd := set(map(type, values)) - {datetime, type(None)}:
        raise TypeError(f"{odd.pop().__name__} is no date")
    unit, _, zone = dtype.removeprefix("datetime64[").removesuffix("]").partition(", ")
    naive = pd.Series(values, dtype=f"datetime64[{unit}]")
    return naive.dt.tz_localize("UTC").dt.tz_convert(zone) if zone else naive


def _inferred(values: list[Any]) -> str:
    kinds = {type(value) for value in values}
    nullable = type(None) in kinds
    kinds.discard(type(None))
    if kinds == {int}:
        return "Int64" if nullable else "int64"
    if kinds == {bool}:
        return "boolean" if nullable else "bool"
    if kinds in ({float}, {int, float}):
        return "float64"
    if kinds == {datetime}:
        return "datetime64[ms, UTC]"
    return "str" if kinds == {str} else "object"


def _python(value: Any) -> Any:
    """A value within an object column, as it was stored: dates know their time zone again."""
    kind = type(value)
    if kind is dict:
        return {key: _python(inner) for key, inner in value.items()}
    if kind is list:
        return [_python(inner) for inner in value]
    if kind is datetime:
        return value.replace(tzinfo=UTC)
    return value.to_decimal() if kind is Decimal128 else value
