"""pandas DataFrames to BSON values, and columns to DataFrames."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import numpy as np
import pandas as pd
from bson.datetime_ms import DatetimeMS

from dagster_mongo.columns import Column
from dagster_mongo.errors import MongoFrameError, MongoLoadError
from dagster_mongo.fields import Field, kinds_of
from dagster_mongo.pandas_dtypes import Dtype, categories_of, name_of, parse, resolve, widened

__all__ = ["to_frame", "to_values", "widened"]

_NULLABLE = {"bool": "boolean"} | {
    kind.lower() + bits: kind + bits for kind in ("Int", "UInt") for bits in ("8", "16", "32", "64")
}
# The kinds of columns that make series of a family of dtypes in NumPy.
_FAST = {
    ("int", "int"),
    ("int", "float"),
    ("double", "float"),
    ("bool", "bool"),
    ("date", "moment"),
    ("date", "naive moment"),
}
_KINDS: dict[str, set[type]] = {
    "int": {int},
    "float": {int, float},
    "bool": {bool},
    "text": {str},
    "moment": {datetime, DatetimeMS},
    "naive moment": {datetime, DatetimeMS},
}
_FIRST, _LAST = np.datetime64("0001-01-01", "ms"), np.datetime64("9999-12-31T23:59:59.999", "ms")


def to_values(frame: object) -> tuple[dict[str, list[Any]], dict[str, Field]]:
    """A DataFrame's columns as values that BSON has, and their dtypes.

    Nulls are None, dates are naive and in UTC.

    Raises:
        MongoFrameError: It is no DataFrame, or has what does not come back: an index, names or
            dtypes that documents cannot have.
    """
    if not isinstance(frame, pd.DataFrame):
        raise MongoFrameError(f"A pandas DataFrame can be stored, not a {type(frame).__name__}.")
    if not frame.columns.is_unique:
        raise MongoFrameError("Two columns of the DataFrame have the same name.")
    # Integers without a name are what sorting and filtering leave behind.
    if any(name is not None for name in frame.index.names) or frame.index.dtype.kind not in "iu":
        raise MongoFrameError(
            f"The DataFrame has an index of its own ({type(frame.index).__name__}), which a"
            " collection has not: make it a column, reset_index()."
        )
    for name in frame.columns:
        if not isinstance(name, str) or not name or name[0] == "$" or set(name) & {".", "\0"}:
            raise MongoFrameError(f"{name!r} is no name for a field: text without '.' and '$'.")
    columns = {str(name): column for name, column in frame.items()}
    fields = {
        name: Field(name_of(name, column.dtype), bool(column.isna().all()))
        for name, column in columns.items()
    }
    return {name: _values(column) for name, column in columns.items()}, fields


def _values(series: "pd.Series[Any]") -> list[Any]:
    dtype = series.dtype
    if isinstance(dtype, pd.DatetimeTZDtype) or dtype.kind == "M":
        return _moments_of(series)
    if isinstance(dtype, np.dtype) and dtype.kind in "biu":
        return series.tolist()
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return [_native(value) for value in series.tolist()]
    return [None if isna else v for v, isna in zip(series.tolist(), series.isna(), strict=True)]


def _native(value: Any) -> Any:
    if value is pd.NaT or (isinstance(value, float) and value != value):
        return None
    return value.to_pydatetime(warn=False) if isinstance(value, pd.Timestamp) else value


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
    assert dtype is not None  # `name_of` has refused it before
    return f"datetime64[{dtype.unit}, {dtype.zone}]" if dtype.zone else f"datetime64[{dtype.unit}]"


def to_frame(
    columns: Mapping[str, Column], rows: int, dtypes: Mapping[str, str | None], order: Any
) -> pd.DataFrame:
    """A DataFrame of columns.

    Args:
        columns: What was found.
        rows: How many documents it was found in.
        dtypes: The columns of the frame, each with its dtype; None follows from the values.
        order: The rows in their order; None for the order in which they were found.

    Raises:
        MongoLoadError: A value does not fit its dtype.
    """
    absent = Column.absent(rows)
    series = {
        name: _series(name, columns.get(name, absent), dtype) for name, dtype in dtypes.items()
    }
    frame = pd.DataFrame(series, index=pd.RangeIndex(rows), columns=list(dtypes))
    return frame if order is None else frame.take(order).reset_index(drop=True)


def _series(name: str, column: Column, dtype: str | None) -> "pd.Series[Any]":
    dtype = dtype or _inferred(column)
    known = parse(dtype)
    assert known is not None  # only what `name_of` took is kept
    try:
        fast = None if dtype.endswith("[pyarrow]") else _from_arrays(column, known, dtype)
        return _typed(column.to_list(), known, dtype) if fast is None else fast
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise MongoLoadError(
            f"Field {name!r} holds what does not fit its dtype {dtype}: {error}."
        ) from None


def _from_arrays(column: Column, wanted: Dtype, dtype: str) -> "pd.Series[Any] | None":
    """The series without a Python object for each value, None if the dtype takes another way."""
    kind = column.kind
    if (kind, wanted.family) not in _FAST:
        return None
    values, missing = column.arrays()
    if kind == "date":
        moments = values.view("datetime64[ms]")
        moments[missing] = np.datetime64("NaT", "ms")
        return _with_zone(pd.Series(moments), wanted)
    if wanted.family == "float":
        values = values.astype(wanted.name)
        if wanted.nullable:
            return pd.Series(pd.arrays.FloatingArray(values, missing))
        values[missing] = np.nan
        return pd.Series(values)
    if kind == "bool":
        nullable = pd.Series(pd.arrays.BooleanArray(values, missing))
    else:
        narrow = values.astype(wanted.name)
        if not np.array_equal(narrow, values):
            raise OverflowError("a number is too large")
        nullable = pd.Series(pd.arrays.IntegerArray(narrow, missing))
    return nullable if missing.any() or wanted.nullable else nullable.astype(cast(Any, dtype))


def _with_zone(moments: "pd.Series[Any]", wanted: Dtype) -> "pd.Series[Any]":
    naive = moments.astype(cast(Any, f"datetime64[{wanted.unit}]"))
    return naive.dt.tz_localize("UTC").dt.tz_convert(wanted.zone) if wanted.zone else naive


def _typed(values: list[Any], known: Dtype, dtype: str) -> "pd.Series[Any]":
    kinds = kinds_of(values)
    if odd := kinds - _KINDS.get(known.family, kinds):
        raise TypeError(f"there is a value of the type {odd.pop().__name__}")
    if known.unit:
        numbers = [None if value is None else int(DatetimeMS(value)) for value in values]
        moments = _with_zone(pd.Series(np.array(numbers, "datetime64[ms]")), known)
        return moments.astype(cast(Any, dtype)) if known.nullable else moments
    categories = categories_of(dtype)
    if categories and (odd_text := set(values) - {None, *categories.categories}):
        raise ValueError(f"{odd_text.pop()!r} is none of its categories")
    # Nullable integers and booleans refuse what numpy would silently make some of.
    series: pd.Series[Any] = pd.Series(
        values, dtype=cast(Any, categories or _NULLABLE.get(dtype, resolve(dtype)))
    )
    return series if dtype not in _NULLABLE or series.hasnans else series.astype(cast(Any, dtype))


def _inferred(column: Column) -> str:
    kind = column.kind
    if kind in ("int", "bool"):
        nulls = bool(column.arrays()[1].any())
        return {"int": "Int64", "bool": "boolean"}[kind] if nulls else kind.replace("int", "int64")
    if kind == "mixed" and kinds_of(column.to_list()) == {int, float}:
        return "float64"
    return {"double": "float64", "date": "datetime64[ms, UTC]", "text": "str"}.get(kind, "object")
