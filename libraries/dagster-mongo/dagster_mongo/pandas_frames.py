"""pandas DataFrames to BSON values, and columns to DataFrames."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import numpy as np
import pandas as pd
from bson import Decimal128
from bson.datetime_ms import DatetimeMS

from dagster_mongo.columns import Column
from dagster_mongo.errors import MongoFrameError, MongoLoadError
from dagster_mongo.fields import Field
from dagster_mongo.pandas_dtypes import name_of, parse, resolve, widened

__all__ = ["fields_of", "to_frame", "to_values", "widened"]

Series = "pd.Series[Any]"

_AS_THEY_ARE = frozenset({type(None), str, bool, int, bytes})
_NULLABLE = {"bool": "boolean"} | {
    kind.lower() + bits: kind + bits for kind in ("Int", "UInt") for bits in ("8", "16", "32", "64")
}
_HAS_STR_DTYPE = int(pd.__version__.split(".")[0]) >= 3
_FIRST, _LAST = np.datetime64("0001-01-01", "ms"), np.datetime64("9999-12-31T23:59:59.999", "ms")


def fields_of(frame: pd.DataFrame) -> dict[str, Field]:
    """The columns of a DataFrame with the names of their dtypes.

    Raises:
        MongoFrameError: A dtype is none that could be loaded again.
    """
    for name, column in frame.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            _refuse_other_than_text(str(name), column.dtype.categories)
    return {
        str(name): Field(name_of(str(name), column.dtype), bool(column.isna().all()))
        for name, column in frame.items()
    }


def _refuse_other_than_text(column: str, categories: "pd.Index[Any]") -> None:
    if not all(isinstance(category, str) for category in categories):
        raise MongoFrameError(
            f"Column {column!r} has categories that are no text: convert it, for example with"
            " astype('object')."
        )


def to_values(frame: object) -> dict[str, list[Any]]:
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
    dtype = series.dtype
    if isinstance(dtype, pd.DatetimeTZDtype) or dtype.kind == "M":
        return _moments_of(series)
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        missing = dtype.kind == "f" and series.hasnans
        return [None if v != v else v for v in series.tolist()] if missing else series.tolist()
    try:
        return [_native(value) for value in series.tolist()]
    except TypeError as error:
        raise MongoFrameError(f"Column {series.name!r} cannot be stored: {error}.") from None


def _moments_of(series: "pd.Series[Any]") -> list[Any]:
    if isinstance(series.dtype, pd.ArrowDtype):
        series = series.astype(cast(Any, _without_arrow(str(series.dtype))))
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    moments = series.dt.floor("ms").to_numpy("datetime64[ms]")
    outside = ~np.isnat(moments) & ((moments < _FIRST) | (moments > _LAST))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise MongoFrameError(
            f"Column {series.name!r} has the date {moments[row]} in row {row}. Dates of the years"
            " 1 to 9999 can be stored: replace it, for example by NaT."
        )
    values: list[Any] = moments.tolist()
    return values


def _without_arrow(name: str) -> str:
    dtype = parse(name)
    assert dtype is not None  # `fields_of` has refused it before
    return f"datetime64[{dtype.unit}, {dtype.zone}]" if dtype.zone else f"datetime64[{dtype.unit}]"


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
    columns: Mapping[str, Column], rows: int, dtypes: Mapping[str, str | None]
) -> pd.DataFrame:
    """A DataFrame of columns.

    Args:
        columns: What was found.
        rows: How many documents it was found in.
        dtypes: The columns of the frame, each with its dtype; None follows from the values.

    Raises:
        MongoLoadError: A value does not fit its dtype.
    """
    absent = Column()
    absent.fill(rows)
    series = {
        name: _series(name, columns.get(name, absent), dtype) for name, dtype in dtypes.items()
    }
    return pd.DataFrame(series, index=pd.RangeIndex(rows), columns=list(dtypes))


def _series(name: str, column: Column, dtype: str | None) -> "pd.Series[Any]":
    if dtype is None:
        dtype = _inferred(column)
    try:
        fast = _from_arrays(column, dtype)
        return cast("pd.Series[Any]", _typed(column.to_list(), dtype) if fast is None else fast)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise MongoLoadError(
            f"Field {name!r} holds what does not fit its dtype {dtype}: {error}."
        ) from None


def _from_arrays(column: Column, dtype: str) -> "pd.Series[Any] | None":
    """The series without a Python object for each value, None if the dtype takes another way."""
    wanted = parse(dtype)
    if wanted is None or dtype.endswith("[pyarrow]"):
        return None
    kind = column.kind
    if kind in ("int", "double") and wanted.family == "float":
        return _floats(column, wanted.name, wanted.nullable)
    if kind == "int" and wanted.family == "int":
        return _integers(column, wanted.name, dtype)
    if kind == "bool" and wanted.family == "bool":
        values, missing = column.arrays()
        nullable = pd.Series(pd.arrays.BooleanArray(values, missing))
        return nullable if missing.any() or dtype == "boolean" else nullable.astype("bool")
    if kind == "date" and wanted.family in ("moment", "naive moment"):
        values, missing = column.arrays()
        moments = values.view("datetime64[ms]")
        moments[missing] = np.datetime64("NaT", "ms")
        naive = pd.Series(moments).astype(cast(Any, f"datetime64[{wanted.unit}]"))
        return _with_zone(naive, wanted.zone)
    return None


def _floats(column: Column, name: str, nullable: bool) -> "pd.Series[Any]":
    values, missing = column.arrays()
    values = values.astype(name)
    if nullable:
        return pd.Series(pd.arrays.FloatingArray(values, missing))
    if missing.any():
        values[missing] = np.nan
    return pd.Series(values)


def _integers(column: Column, name: str, dtype: str) -> "pd.Series[Any] | None":
    values, missing = column.arrays()
    narrow = values.astype(name)
    if not np.array_equal(narrow, values):
        raise OverflowError("a number is too large")
    if dtype == name and not missing.any():
        return pd.Series(narrow)
    return pd.Series(pd.arrays.IntegerArray(narrow, missing))


def _with_zone(naive: "pd.Series[Any]", zone: str) -> "pd.Series[Any]":
    return naive.dt.tz_localize("UTC").dt.tz_convert(zone) if zone else naive


def _typed(values: list[Any], dtype: str) -> Any:
    if dtype == "object":
        return pd.Series([_python(value) for value in values], dtype=object)
    known = parse(dtype)
    if known and known.family in ("moment", "naive moment"):
        series = _moments(values, known.unit, known.zone)
        return series.astype(cast(Any, dtype)) if known.nullable else series
    if known and known.family == "text":
        _expect(values, str)
    if nullable := _NULLABLE.get(dtype):
        # It refuses what numpy would silently make an integer of.
        series = pd.Series(values, dtype=cast(Any, nullable))
        return series if series.hasnans else series.astype(cast(Any, dtype))
    if dtype == "str" and not _HAS_STR_DTYPE:
        return pd.Series(values, dtype=object)
    return pd.Series(values, dtype=cast(Any, resolve(dtype)))


def _expect(values: Sequence[Any], *kinds: type) -> None:
    if odd := set(map(type, values)) - {*kinds, type(None)}:
        raise TypeError(f"there is a value of the type {odd.pop().__name__}")


def _moments(values: list[Any], unit: str, zone: str) -> "pd.Series[Any]":
    _expect(values, datetime, DatetimeMS)
    moments = [int(value) if isinstance(value, DatetimeMS) else value for value in values]
    naive = pd.Series(np.array(moments, "datetime64[ms]")).astype(cast(Any, f"datetime64[{unit}]"))
    return _with_zone(naive, zone)


def _inferred(column: Column) -> str:
    kind = column.kind
    if kind == "mixed":
        types = {type(value) for value in column.to_list()} - {type(None)}
        return "float64" if types == {int, float} else "object"
    if kind in ("int", "bool"):
        nulls = bool(column.arrays()[1].any())
        return {"int": "Int64", "bool": "boolean"}[kind] if nulls else kind.replace("int", "int64")
    return {"double": "float64", "date": "datetime64[ms, UTC]", "text": "str"}.get(kind, "object")


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
