"""The columns of a frame with their dtypes, and how dtypes of different stores are merged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Clash", "Field", "Fields", "Widening", "described", "merged", "parsed"]


class Field(NamedTuple):
    """A column of what was stored.

    Attributes:
        dtype: Its name, in the words of the DataFrame library. None: follow the values.
        only_nulls: Every value so far was null, so any other dtype may take its place.
    """

    dtype: str | None
    only_nulls: bool = False


Fields = Mapping[str, Field]
# The dtype that holds the values of both, None if there is none.
Widening = Callable[[str, str], str | None]


class Clash(NamedTuple):
    """A column whose kept dtype and new dtype have none that holds both."""

    name: str
    kept: str
    new: str


def merged(kept: Fields, new: Fields, widening: Widening) -> tuple[dict[str, Field], list[Clash]]:
    """The columns of both, those that were kept first.

    Args:
        kept: The columns of all earlier stores.
        new: The columns of the frame to store.
        widening: The rules of the DataFrame library.
    """
    fields = dict(kept)
    clashes = []
    for name, field in new.items():
        before = kept.get(name)
        if before is None or before.dtype is None or before.only_nulls:
            only_nulls = field.only_nulls and (before is None or before.only_nulls)
            keeps_first = before is not None and before.dtype is not None and field.only_nulls
            fields[name] = before if keeps_first and before else Field(field.dtype, only_nulls)
        elif field.only_nulls or field.dtype is None or field.dtype == before.dtype:
            continue
        elif (dtype := widening(before.dtype, field.dtype)) is not None:
            fields[name] = Field(dtype)
        else:
            clashes.append(Clash(name, before.dtype, field.dtype))
    return fields, clashes


def described(fields: Fields) -> list[dict[str, Any]]:
    """The columns as they are kept in MongoDB."""
    return [
        {"name": name, "dtype": field.dtype, **({"only_nulls": True} if field.only_nulls else {})}
        for name, field in fields.items()
    ]


def parsed(columns: Sequence[Mapping[str, Any]]) -> dict[str, Field]:
    """The columns that `described` described."""
    return {
        column["name"]: Field(column["dtype"], bool(column.get("only_nulls"))) for column in columns
    }
