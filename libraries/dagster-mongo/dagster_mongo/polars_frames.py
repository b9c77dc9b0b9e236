"""polars DataFrames to BSON values, and back."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from bson import ObjectId

from dagster_mongo.columns import kinds_of
from dagster_mongo.errors import MongoFrameError, MongoLoadError
from dagster_mongo.polars_dtypes import is_temporal, name_of, parse, storable, widened
from dagster_mongo.schemas import Field

__all__ = ["to_frame", "to_values", "widened"]

_MILLISECONDS = {"ms": 1, "us": 1000, "ns": 1_000_000}
_FIRST, _LAST = (int(np.datetime64(day, "ms").astype(int)) for day in ("0001-01-01", "9999-12-31"))


def to_values(frame: object) -> tuple[dict[str, list[Any]], dict[str, Field]]:
    """A DataFrame's columns as values that BSON has, and their dtypes.

    Dates are naive and in UTC, NaN stays NaN.

    Raises:
        MongoFrameError: It is no DataFrame, or has names or dtypes that documents cannot have.
    """
    if isinstance(frame, pl.LazyFrame):
        raise MongoFrameError("A polars LazyFrame has no rows yet: collect() it.")
    if not isinstance(frame, pl.DataFrame):
        raise MongoFrameError(f"A polars DataFrame can be stored, not a {type(frame).__name__}.")
    for name in frame.columns:
        if not name or name[0] == "$" or set(name) & {".", "\0"}:
            raise MongoFrameError(f"{name!r} is no name for a field: text without '.' and '$'.")
    fields = {
        series.name: Field(name_of(series.name, series.dtype), series.null_count() == len(series))
        for series in frame
    }
    return {series.name: _values(series) for series in frame}, fields


def _values(series: pl.Series) -> list[Any]:
    dtype = series.dtype
    if isinstance(dtype, pl.Datetime):
        return _moments_of(series, dtype.time_unit)
    if dtype == pl.Date:
        return _moments_of(series.cast(pl.Datetime("ms")), "ms")
    if dtype.is_nested() and is_temporal(dtype):
        return series.cast(storable(dtype)).to_list()
    return series.to_list()


def _moments_of(series: pl.Series, unit: str) -> list[Any]:
    numbers = series.to_physical() // _MILLISECONDS[unit]
    outside = ((numbers < _FIRST) | (numbers >= _LAST + 86_400_000)).fill_null(False)
    if outside.any():
        row = outside.arg_true()[0]
        raise MongoFrameError(
            f"Column {series.name!r} has a date outside of the years 1 to 9999 in row {row}, which"
            " cannot be stored: replace it, for example by null."
        )
    return numbers.cast(pl.Datetime("ms")).to_list()


def to_frame(
    columns: Mapping[str, list[Any]], rows: int, dtypes: Mapping[str, str | None], order: Any
) -> pl.DataFrame:
    """A DataFrame of the values of documents; arguments and errors as `pandas_frames.to_frame`."""
    absent = [None] * rows
    frame = pl.DataFrame(
        [_series(name, columns.get(name, absent), dtype) for name, dtype in dtypes.items()]
    )
    return frame if order is None else frame[order]


def _series(name: str, values: list[Any], dtype: str | None) -> pl.Series:
    wanted = None
    if dtype is None:
        values = [_plain(value) for value in values]
    try:
        kinds = kinds_of(values)
        wanted = _inferred(name, values, kinds) if dtype is None else parse(dtype)
        return _typed(name, values, kinds, wanted)
    except (TypeError, ValueError, OverflowError, KeyError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MongoLoadError(
            f"Field {name!r} holds what does not fit its dtype {wanted or dtype}: {reason}."
        ) from None


def _typed(name: str, values: list[Any], kinds: set[type], dtype: pl.DataType) -> pl.Series:
    if isinstance(dtype, pl.Datetime | pl.Date):
        if odd := kinds - {datetime}:
            raise TypeError(f"there is a value of the type {odd.pop().__name__}")
        naive = [value and value.replace(tzinfo=None) for value in values]
        moments = pl.Series(name, naive, pl.Datetime("us"))
        if getattr(dtype, "time_zone", None):
            moments = moments.dt.replace_time_zone("UTC")
        return moments.cast(dtype)
    if dtype.is_float() and int in kinds:
        values = [value if value is None else float(value) for value in values]
    elif is_temporal(dtype):
        values = [_python(value, dtype) for value in values]
    return pl.Series(name, values, dtype, strict=True)


def _inferred(name: str, values: list[Any], kinds: set[type]) -> pl.DataType:
    if kinds == {int, float}:
        return pl.Float64()
    if kinds == {datetime}:
        return pl.Datetime("ms", "UTC")
    try:
        return pl.Series(name, values, strict=True).dtype
    except (TypeError, pl.exceptions.PolarsError):
        raise TypeError("values of different types are no column of polars") from None


def _plain(value: Any) -> Any:
    """A value of an unknown dtype as polars knows it: an ObjectId is its text."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return str(value) if isinstance(value, ObjectId) else value


def _python(value: Any, dtype: Any) -> Any:
    """A value that BSON has, as polars takes it for a dtype."""
    if isinstance(value, list) and isinstance(dtype, pl.List):
        return [_python(inner, dtype.inner) for inner in value]
    if isinstance(value, dict) and isinstance(dtype, pl.Struct):
        inner = {field.name: field.dtype for field in dtype.fields}
        return {name: _python(v, inner.get(name)) for name, v in value.items()}
    if not isinstance(value, datetime):
        return value
    if dtype == pl.Date:
        return value.date()
    return value if getattr(dtype, "time_zone", None) else value.replace(tzinfo=None)
