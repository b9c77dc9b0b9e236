"""What the columns of pandas and of polars have in common."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import numpy as np
from bson import Int64
from numpy.typing import NDArray

__all__ = ["capitalized", "columns_of", "kinds_of", "moments_of", "number"]


def columns_of(documents: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of each field, None where a document has it not."""
    names = dict.fromkeys(chain.from_iterable(documents))
    return {name: [document.get(name) for document in documents] for name in names}


def kinds_of(values: Sequence[Any]) -> set[type]:
    """The types of the values that are not missing; pymongo's own integers are integers."""
    return {int if kind is Int64 else kind for kind in set(map(type, values))} - {type(None)}


def moments_of(values: Sequence[datetime | None]) -> NDArray[np.datetime64]:
    """Dates in UTC as NumPy has them: without a zone."""
    return np.array([value and value.replace(tzinfo=None) for value in values], "datetime64[ms]")


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
