"""Batches decoded into columns are what pymongo decodes, for documents of any kind."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import bson
import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_mongo.columns import to_columns
from dagster_mongo.documents import CODEC

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-9, 9),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.binary(max_size=9),
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(
        lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    ),
    st.sampled_from(
        [
            Decimal128("1.50"),
            ObjectId("0123456789abcdef01234567"),
            Timestamp(1, 2),
            MinKey(),
            MaxKey(),
            Regex("a", "i"),
            Code("f()"),
            Code("f()", {"x": 1}),
            Binary(b"ab", 128),
            UUID(int=7),
            Int64(5),
            DatetimeMS(2**48),
        ]
    ),
)
NAMES = st.sampled_from(["a", "b", "long_name_of_more_than_eight", "é", "", "$x", "a.b"])
DOCUMENTS = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
        max_leaves=4,
    ),
)


def columns_of(batches: list[bytes]) -> dict[str, list[Any]]:
    columns, _ = to_columns(batches)
    return {name: column.to_list() for name, column in columns.items()}


def as_pymongo_decodes(batches: list[bytes]) -> dict[str, list[Any]]:
    documents = [d for batch in batches for d in bson.decode_all(batch, CODEC)]
    names = dict.fromkeys(name for document in documents for name in document)
    return {name: [document.get(name) for document in documents] for name in names}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(DOCUMENTS, max_size=8), max_size=3))
def test_columns_are_what_pymongo_decodes(batches: list[list[dict[str, Any]]]) -> None:
    encoded = [
        b"".join(bson.encode(document, codec_options=CODEC) for document in batch)
        for batch in batches
        if batch
    ]
    assert columns_of(encoded) == as_pymongo_decodes(encoded)


@pytest.mark.parametrize("fields", [1, 40], ids=["few layouts", "many layouts"])
def test_documents_of_many_layouts(fields: int) -> None:
    documents = [
        {f"f{(i * 7 + j) % fields}": i * j for j in range(i % 5)} | {"x": i} for i in range(200)
    ]
    batch = b"".join(map(bson.encode, documents))
    assert columns_of([batch, batch]) == as_pymongo_decodes([batch, batch])


def test_a_name_that_is_long() -> None:
    batch = b"".join(bson.encode({"n" * size: size}) for size in (1, 499, 501, 5000))
    assert columns_of([batch]) == as_pymongo_decodes([batch])


def test_what_the_batches_raise_is_raised() -> None:
    def batches() -> Any:
        yield bson.encode({"a": 1})
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        to_columns(batches())


def test_values_are_arrays_where_all_have_one_type() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {"i": 1, "f": 1.5, "t": "x", "b": True, "d": at, "m": 2**40},
        {"i": 2**40, "f": None, "m": "x"},
    ]
    columns, size = to_columns([b"".join(map(bson.encode, rows))])
    assert size == 2
    assert {name: column.kind for name, column in columns.items()} == {
        "i": "int",
        "f": "double",
        "t": "text",
        "b": "bool",
        "d": "date",
        "m": "mixed",
    }
    values, missing = columns["f"].arrays()
    assert (values[0], missing.tolist()) == (1.5, [False, True])
