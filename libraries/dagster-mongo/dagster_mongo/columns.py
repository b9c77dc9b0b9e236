"""What the columns of pandas and of polars have in common."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from bson import Int64

__all__ = ["capitalized", "columns_of", "kinds_of", "may_hold_dates", "number"]

_NESTED = ("object", '["List', '["Struct')


def columns_of(documents: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of each field, None where a document has it not."""
    names = dict.fromkeys(chain.from_iterable(documents))
    return {name: [document.get(name) for document in documents] for name in names}


def may_hold_dates(dtype: str | None) -> bool:
    """Whether a column may have dates within its values; None is a dtype that is not known."""
    return dtype is None or dtype.startswith(_NESTED)


def kinds_of(values: Sequence[Any]) -> set[type]:
    """The types of the values that are not missing; pymongo's own integers are integers."""
    return {int if kind is Int64 else kind for kind in set(map(type, values))} - {type(None)}


def number(a: str, b: str) -> str:
    """The dtype of NumPy that holds the numbers of both, as far as BSON has them."""
    if a.startswith("float") != b.startswith("float"):
        return "float64"
    name = str(np.result_type(a, b))
    # NumPy's answer to uint64 and a signed one; BSON has no larger integer than int64.
    return "int64" if name.startswith("float") and not a.startswith("float") else name


def capitalized(name: str) -> str:
    """The name of a number's dtype as polars has it, and pandas if it has nulls."""
    return name.capitalize().replace("Uint", "UInt")
