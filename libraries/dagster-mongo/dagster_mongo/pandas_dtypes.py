"""The dtypes of pandas that can be kept, and the rules by which two of them become one."""

import json
import re
from typing import NamedTuple

import numpy as np
import pandas as pd

from dagster_mongo.errors import MongoFrameError

__all__ = ["Dtype", "categories_of", "name_of", "parse", "resolve", "widened"]

_DTYPE = re.compile(
    r"(?P<number>(?P<sign>[uU]?)(?P<kind>[iI]nt|[fF]loat)(?P<bits>8|16|32|64))"
    r"|(?P<bool>bool|boolean)"
    r"|(?P<text>str|string)"
    r"|datetime64\[(?P<unit>s|ms|us|ns)(, (?P<zone>.+))?\]"
    r"|(?P<object>object)"
)
_ARROW = {
    **{f"{kind}[pyarrow]": kind.capitalize() for kind in ("int8", "int16", "int32", "int64")},
    **{f"u{kind}[pyarrow]": f"UI{kind[1:]}" for kind in ("int8", "int16", "int32", "int64")},
    "halffloat[pyarrow]": "Float32",
    "float[pyarrow]": "Float32",
    "double[pyarrow]": "Float64",
    "bool[pyarrow]": "boolean",
    "string[pyarrow]": "string",
    "large_string[pyarrow]": "string",
}
_CATEGORY = "category"
_MOST_CATEGORIES = 10_000
_ARROW_MOMENT = re.compile(r"timestamp\[(?P<unit>s|ms|us|ns)(, tz=(?P<zone>.+))?\]\[pyarrow\]")


class Dtype(NamedTuple):
    """A dtype taken apart.

    Attributes:
        family: "int", "float", "bool", "text", "moment", "naive moment" or "object".
        nullable: It is one of pandas's own nullable dtypes.
    """

    family: str
    nullable: bool = False
    name: str = ""
    unit: str = ""
    zone: str = ""


def name_of(column: str, dtype: object) -> str:
    """The name by which a dtype is kept: that of pandas, or JSON with the categories.

    Raises:
        MongoFrameError: It is none that could be loaded again.
    """
    if isinstance(dtype, pd.CategoricalDtype):
        return _name_of_categories(column, dtype)
    name = str(dtype)
    if parse(name) is None:
        raise MongoFrameError(
            f"Column {column!r} cannot be stored with its dtype {name}: convert it, for example"
            " with astype('object') or astype('str')."
        )
    return name


def _name_of_categories(column: str, dtype: "pd.CategoricalDtype") -> str:
    categories = dtype.categories.tolist()
    if len(categories) > _MOST_CATEGORIES or not all(isinstance(c, str) for c in categories):
        raise MongoFrameError(
            f"Column {column!r} has categories that are no text, or more than {_MOST_CATEGORIES}:"
            " convert it, for example with astype('object') or astype('str')."
        )
    return json.dumps([_CATEGORY, categories, bool(dtype.ordered)], ensure_ascii=False)


def categories_of(name: str) -> "pd.CategoricalDtype | None":
    """The categories by the name of their dtype, None if it has none."""
    if not name.startswith("["):
        return None
    _, categories, ordered = json.loads(name)
    return pd.CategoricalDtype(categories, ordered=ordered)


def parse(name: str) -> Dtype | None:
    """A dtype by its name, None if it is not one that can be kept."""
    if name.startswith("["):
        return Dtype("text", False, name)
    if arrow := _ARROW.get(name):
        found = parse(arrow)
        return found and found._replace(nullable=True)
    if moment := _ARROW_MOMENT.fullmatch(name):
        family = "moment" if moment["zone"] else "naive moment"
        return Dtype(family, True, name, moment["unit"], moment["zone"] or "")
    match = _DTYPE.fullmatch(name)
    if not match:
        return None
    if match["number"]:
        nullable = (match["sign"] or match["kind"])[0].isupper()
        return Dtype(match["kind"].lower(), nullable, name.lower())
    if match["bool"]:
        return Dtype("bool", name == "boolean", name)
    if match["text"]:
        return Dtype("text", name == "string", name)
    if match["object"]:
        return Dtype("object", False, name)
    family = "moment" if match["zone"] else "naive moment"
    return Dtype(family, False, name, match["unit"], match["zone"] or "")


def resolve(name: str) -> object:
    """The dtype of a name, as pandas takes it."""
    if name in ("string[pyarrow]", "large_string[pyarrow]"):
        import pyarrow as pa

        return pd.ArrowDtype(pa.string() if name.startswith("string") else pa.large_string())
    return name


def widened(kept: str, new: str) -> str | None:
    """The dtype that holds the values of two; None if there is none.

    Integers become the smallest that holds both, integers and floats float64, categories without
    an order those of both, other texts of different kinds `str`, dates of different units
    milliseconds (BSON has no finer ones), dates of different
    zones UTC. If one of two is nullable, the result is. `object` takes everything. Nothing else
    is changed: numbers do not become text, nor dates without a zone dates with one.
    """
    a, b = parse(kept), parse(new)
    if a is None or b is None:
        return None
    if "object" in (a.family, b.family):
        return "object"
    families = {a.family, b.family}
    nullable = a.nullable or b.nullable
    if families <= {"int", "float"}:
        return _number(a, b, nullable)
    if len(families) > 1:
        return None
    if a.family == "bool":
        return "boolean" if nullable else "bool"
    if a.family == "text":
        return _text(kept, new, nullable)
    unit = a.unit if a.unit == b.unit else "ms"
    if a.family == "naive moment":
        return f"datetime64[{unit}]"
    return f"datetime64[{unit}, {a.zone if a.zone == b.zone else 'UTC'}]"


def _text(kept: str, new: str, nullable: bool) -> str:
    a, b = categories_of(kept), categories_of(new)
    if a is not None and b is not None and not a.ordered and not b.ordered:
        both = list(dict.fromkeys([*a.categories, *b.categories]))
        if len(both) <= _MOST_CATEGORIES:
            return _name_of_categories("", pd.CategoricalDtype(both))
    return "string" if nullable else "str"


def _number(a: Dtype, b: Dtype, nullable: bool) -> str:
    if a.family != b.family:
        name = "float64"
    else:
        name = str(np.result_type(a.name, b.name))
        # NumPy's answer to uint64 and a signed one; BSON has no larger integer than int64.
        name = "int64" if a.family == "int" and name == "float64" else name
    if not nullable:
        return name
    return name.replace("uint", "UInt") if name[0] == "u" else name.capitalize()
