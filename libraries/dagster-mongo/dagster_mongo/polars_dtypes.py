"""The dtypes of polars by names that can be kept, and the rules by which two become one."""

import json
from collections.abc import Callable
from typing import Any

import polars as pl

from dagster_mongo.columns import capitalized, number
from dagster_mongo.errors import MongoFrameError

__all__ = ["is_temporal", "name_of", "parse", "storable", "widened"]

_TEXTS = (pl.String, pl.Categorical, pl.Enum)
_NUMBERS = [
    "Float32",
    "Float64",
    *(f"{k}{bits}" for k in ("Int", "UInt") for bits in (8, 16, 32, 64)),
]
_OTHERS = ["Boolean", "String", "Categorical", "Date", "Binary", "Null"]
_PLAIN = {name: getattr(pl, name) for name in [*_NUMBERS, *_OTHERS]}


def name_of(column: str, dtype: pl.DataType) -> str:
    """The name by which a dtype is kept: that of polars, or JSON with its parameters.

    Raises:
        MongoFrameError: It is none that BSON has values for.
    """
    described = _described(dtype)
    if described is None:
        raise MongoFrameError(
            f"Column {column!r} cannot be stored with its dtype {dtype}: BSON has no such values."
            " Convert it with cast()."
        )
    return described if isinstance(described, str) else json.dumps(described)


def _described(dtype: pl.DataType) -> Any:
    base = dtype.base_type()
    if isinstance(dtype, pl.Datetime):
        return ["Datetime", dtype.time_unit, dtype.time_zone]
    if isinstance(dtype, pl.Decimal):
        return ["Decimal", dtype.precision, dtype.scale]
    if isinstance(dtype, pl.Enum):
        return ["Enum", dtype.categories.to_list()]
    if isinstance(dtype, pl.List):
        inner = _described(_dtype(dtype.inner))
        return None if inner is None else ["List", inner]
    if isinstance(dtype, pl.Struct):
        fields = [[field.name, _described(_dtype(field.dtype))] for field in dtype.fields]
        return None if any(inner is None for _, inner in fields) else ["Struct", fields]
    name = str(base)
    return name if name in _PLAIN else None


def _dtype(dtype: Any) -> pl.DataType:
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance


def parse(name: str) -> pl.DataType:
    """The dtype of a name that `name_of` made."""
    return _parsed(json.loads(name) if name.startswith("[") else name)


def _parsed(described: Any) -> pl.DataType:
    if isinstance(described, str):
        return _dtype(_PLAIN[described])
    kind, *parameters = described
    makers: dict[str, Callable[..., pl.DataType]] = {
        "Datetime": pl.Datetime,
        "Decimal": pl.Decimal,
        "Enum": pl.Enum,
        "List": lambda inner: pl.List(_parsed(inner)),
        "Struct": lambda fields: pl.Struct({n: _parsed(inner) for n, inner in fields}),
    }
    return makers[kind](*parameters)


def is_temporal(dtype: Any) -> bool:
    """Whether there are dates in it."""
    if isinstance(dtype, pl.List):
        return is_temporal(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return any(is_temporal(field.dtype) for field in dtype.fields)
    return isinstance(_dtype(dtype), pl.Datetime | pl.Date)


def storable(dtype: Any) -> pl.DataType:
    """The dtype whose values BSON has: with datetimes for dates."""
    if isinstance(dtype, pl.List):
        return pl.List(storable(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: storable(field.dtype) for field in dtype.fields})
    return pl.Datetime("ms") if dtype == pl.Date else _dtype(dtype)


def widened(kept: str, new: str) -> str | None:
    """The dtype that holds the values of two, None if there is none; the README has the rules."""
    dtype = _widened(parse(kept), parse(new))
    return None if dtype is None else name_of("", dtype)


def _widened(a: pl.DataType, b: pl.DataType) -> pl.DataType | None:
    if a == b or b == pl.Null:
        return a
    if a == pl.Null:
        return b
    if a.is_numeric() and b.is_numeric() and not isinstance(a, pl.Decimal):
        if isinstance(b, pl.Decimal):
            return None
        return _dtype(_PLAIN[capitalized(number(str(a).lower(), str(b).lower()))])
    if isinstance(a, _TEXTS) and isinstance(b, _TEXTS):
        return pl.String()
    if isinstance(a, pl.Datetime) and isinstance(b, pl.Datetime):
        return _datetime(a, b)
    if isinstance(a, pl.Decimal) and isinstance(b, pl.Decimal):
        scale = max(a.scale, b.scale)
        whole = max((a.precision or 38) - a.scale, (b.precision or 38) - b.scale)
        return pl.Decimal(whole + scale, scale) if whole + scale <= 38 else None
    if isinstance(a, pl.List) and isinstance(b, pl.List):
        inner = _widened(_dtype(a.inner), _dtype(b.inner))
        # Integers in lists are not checked for what a float can hold.
        changes = inner is not None and inner.is_float() and not _both_float(a, b)
        return None if inner is None or changes else pl.List(inner)
    return None


def _both_float(a: pl.List, b: pl.List) -> bool:
    return all(_dtype(inner).is_float() or inner == pl.Null for inner in (a.inner, b.inner))


def _datetime(a: pl.Datetime, b: pl.Datetime) -> pl.DataType | None:
    if bool(a.time_zone) != bool(b.time_zone):
        return None
    unit = a.time_unit if a.time_unit == b.time_unit else "ms"
    return pl.Datetime(unit, a.time_zone if a.time_zone == b.time_zone else "UTC")
