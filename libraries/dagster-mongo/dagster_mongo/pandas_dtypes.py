"""The dtypes of pandas that can be kept, and the rules by which two of them become one."""

import json
from typing import Any

import numpy as np
import pandas as pd

from dagster_mongo.columns import capitalized, number
from dagster_mongo.errors import MongoFrameError

__all__ = ["family_of", "name_of", "nullable", "parse", "widened"]

_CATEGORY = "category"
_MOST_CATEGORIES = 10_000
_MASKED = {f"{kind}{bits}" for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)}
_MASKED |= {"Float32", "Float64", "boolean"}
_FAMILIES = {"i": "int", "u": "int", "f": "float", "b": "bool", "M": "naive moment", "O": "object"}


def name_of(column: str, dtype: Any) -> str:
    """The name by which a dtype is kept: that of pandas, or JSON with the categories.

    Raises:
        MongoFrameError: It is none that could be loaded again.
    """
    if not family_of(dtype):
        raise MongoFrameError(
            f"Column {column!r} cannot be stored with its dtype {dtype}: convert it, for example"
            " with astype('object') or astype('str')."
        )
    if isinstance(dtype, pd.DatetimeTZDtype) and not _is_known(dtype):
        raise MongoFrameError(
            f"Column {column!r} has a time zone without a name to load it by, {dtype.tz}: convert"
            " it, for example with dt.tz_convert('America/Sao_Paulo') or dt.tz_convert('UTC')."
        )
    if not isinstance(dtype, pd.CategoricalDtype):
        return str(dtype)
    categories = dtype.categories.tolist()
    if len(categories) > _MOST_CATEGORIES or not all(isinstance(c, str) for c in categories):
        raise MongoFrameError(
            f"Column {column!r} has categories that are no text, or more than {_MOST_CATEGORIES}:"
            " convert it, for example with astype('object') or astype('str')."
        )
    return json.dumps([_CATEGORY, categories, bool(dtype.ordered)], ensure_ascii=False)


def parse(name: str) -> Any:
    """The dtype of a name that `name_of` made."""
    if not name.startswith("["):
        return pd.api.types.pandas_dtype(name)
    _, categories, ordered = json.loads(name)
    return pd.CategoricalDtype(categories, ordered=ordered)


def _is_known(dtype: pd.DatetimeTZDtype) -> bool:
    """Whether its name is enough to make it anew."""
    try:
        return str(parse(str(dtype))) == str(dtype)
    except TypeError:
        return False


def family_of(dtype: Any) -> str:
    """Which values a dtype has, empty if it cannot be kept."""
    if isinstance(dtype, pd.CategoricalDtype | pd.StringDtype):
        return "text"
    if isinstance(dtype, pd.DatetimeTZDtype):
        return "moment"
    is_kept = (isinstance(dtype, np.dtype) and dtype.itemsize <= 8) or str(dtype) in _MASKED
    return _FAMILIES.get(dtype.kind, "") if is_kept else ""


def nullable(name: str) -> str:
    """The name of the dtype that has nulls besides: pandas's own, of integers and truth values."""
    return "boolean" if name.startswith("bool") else capitalized(name)


def widened(kept: str, new: str) -> str | None:
    """The dtype that holds the values of two, None if there is none; the README has the rules."""
    a, b = parse(kept), parse(new)
    families = {family_of(a), family_of(b)}
    if "object" in families:
        return "object"
    is_masked = not _MASKED.isdisjoint([kept, new])
    if families <= {"int", "float"}:
        name = number(kept.lower(), new.lower())
        return capitalized(name) if is_masked else name
    if len(families) > 1:
        return None
    if families == {"bool"}:
        return "boolean" if is_masked else "bool"
    if families == {"text"}:
        return "string" if "string" in (kept, new) else "str"
    unit = _unit_of(kept) if _unit_of(kept) == _unit_of(new) else "ms"
    if families == {"naive moment"}:
        return f"datetime64[{unit}]"
    return f"datetime64[{unit}, {a.tz if a.tz == b.tz else 'UTC'}]"


def _unit_of(name: str) -> str:
    """The unit of a dtype of dates."""
    return name.partition("[")[2].partition(",")[0].rstrip("]")
