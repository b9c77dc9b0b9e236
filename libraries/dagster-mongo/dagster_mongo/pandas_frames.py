"""pandas DataFrames to BSON values, and back."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from dagster_mongo.columns import kinds_of
from dagster_mongo.errors import MongoFrameError, MongoLoadError
from dagster_mongo.pandas_dtypes import family_of, name_of, nullable, parse, widened
from dagster_mongo.schemas import Field

__all__ = ["to_frame", "to_values", "widened"]

_KINDS: dict[str, set[type]] = {
    "int": {int},
    "float": {int, float},
    "bool": {bool},
    "text": {str},
    "moment": {datetime},
    "naive moment": {datetime},
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
    family = family_of(series.dtype)
    if family.endswith("moment"):
        return _moments(series)
    if family == "object":
        return [_native(value) for value in series.tolist()]
    if not series.hasnans:
        return series.tolist()
    return [None if isna else v for v, isna in zip(series.tolist(), series.isna(), strict=True)]


def _native(value: Any) -> Any:
    if value is pd.NaT or (isinstance(value, float) and value != value):
        return None
    return value.to_pydatetime(warn=False) if isinstance(value, pd.Timestamp) else value


def _moments(series: "pd.Series[Any]") -> list[Any]:
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


def to_frame(
    columns: Mapping[str, list[Any]], rows: int, dtypes: Mapping[str, str | None], order: Any
) -> pd.DataFrame:
    """A DataFrame of the values of documents.

    Args:
        columns: The values of the fields that were found, None where one is missing.
        rows: The number of documents.
        dtypes: The columns of the frame, each with its dtype; None follows from the values.
        order: The rows in their order; None for the order in which they were found.

    Raises:
        MongoLoadError: A value does not fit its dtype.
    """
    absent = [None] * rows
    series = {
        name: _series(name, columns.get(name, absent), dtype) for name, dtype in dtypes.items()
    }
    frame = pd.DataFrame(series, index=pd.RangeIndex(rows), columns=list(dtypes))
    return frame if order is None else frame.take(order).reset_index(drop=True)


def _series(name: str, values: Sequence[Any], dtype: str | None) -> "pd.Series[Any]":
    kinds = kinds_of(values)
    dtype = dtype or _inferred(values, kinds)
    try:
        return _typed(values, kinds, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise MongoLoadError(
            f"Field {name!r} holds what does not fit its dtype {dtype}: {error}."
        ) from None


def _typed(values: Sequence[Any], kinds: set[type], name: str) -> "pd.Series[Any]":
    dtype: Any = parse(name)
    family = family_of(dtype)
    if odd := kinds - _KINDS.get(family, kinds):
        raise TypeError(f"there is a value of the type {odd.pop().__name__}")
    if family.endswith("moment"):
        moments: pd.Series[Any] = pd.Series(pd.DatetimeIndex(list(values), tz="UTC"))
        moments = moments if family == "moment" else moments.dt.tz_localize(None)
        return moments.astype(dtype)
    if isinstance(dtype, pd.CategoricalDtype):
        if odd_text := set(values) - {None, *dtype.categories}:
            raise ValueError(f"{odd_text.pop()!r} is none of its categories")
    elif family in ("int", "bool") and None in values:
        dtype = nullable(name)
    series: pd.Series[Any] = pd.Series(values, dtype=dtype)
    return series


def _inferred(values: Sequence[Any], kinds: set[type]) -> str:
    if kinds in ({int}, {bool}):
        name = "int64" if kinds == {int} else "bool"
        return nullable(name) if None in values else name
    if kinds in ({float}, {int, float}):
        return "float64"
    if kinds == {str}:
        return "str"
    return "datetime64[ms, UTC]" if kinds == {datetime} else "object"
