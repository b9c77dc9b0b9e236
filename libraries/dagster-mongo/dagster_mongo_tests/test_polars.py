"""polars DataFrames come back as they were."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from bson import ObjectId
from polars.testing import assert_frame_equal

from dagster_mongo import MongoFrameError, MongoLoadError, MongoPolarsIOManager

from .direct import Direct

AT = datetime(2026, 11, 23, 13, 0, 0, 123_000)


def every_kind() -> pl.DataFrame:
    aware = AT.replace(tzinfo=UTC)
    return pl.DataFrame(
        [
            pl.Series("_id", ["a", "b"]),
            pl.Series("text", ["é", None]),
            pl.Series("n", [2**53 + 1, None], pl.Int64),
            pl.Series("tiny", [1, 2], pl.Int8),
            pl.Series("unsigned", [1, None], pl.UInt16),
            pl.Series("price", [1.5, None]),
            pl.Series("small", [1.5, 2.5], pl.Float32),
            pl.Series("flag", [True, None]),
            pl.Series("utc", [aware, None], pl.Datetime("us", "UTC")),
            pl.Series("local", [aware, None], pl.Datetime("ns", "America/Sao_Paulo")),
            pl.Series("naive", [AT, None], pl.Datetime("ms")),
            pl.Series("day", [date(2026, 1, 2), None]),
            pl.Series("kind", ["x", None], pl.Categorical),
            pl.Series("one_of", ["x", "y"], pl.Enum(["x", "y"])),
            pl.Series("bytes", [b"\0\1", None]),
            pl.Series("list", [[1, None], []], pl.List(pl.Int64)),
            pl.Series("moments", [[AT], None], pl.List(pl.Datetime("us"))),
            pl.Series("struct", [{"a": 1, "b": [aware]}, {"a": None, "b": None}], SUB),
            pl.Series("nothing", [None, None], pl.Null),
        ]
    )


SUB = pl.Struct({"a": pl.Int8, "b": pl.List(pl.Datetime("us", "UTC"))})


@pytest.fixture
def asset(uri: str) -> Any:
    direct = Direct(uri, MongoPolarsIOManager, {"mongo/key": ["_id"]})
    yield direct
    direct.clean()


def test_every_dtype_comes_back(asset: Direct) -> None:
    asset.store(every_kind())
    assert_frame_equal(asset.load().sort("_id"), every_kind(), categorical_as_str=True)


def test_an_empty_frame_comes_back_with_its_dtypes(asset: Direct) -> None:
    asset.store(every_kind().clear())
    assert asset.load().schema == every_kind().schema


@pytest.mark.services
def test_decimals_and_nan_come_back(real_mongo: str) -> None:
    direct = Direct(real_mongo, MongoPolarsIOManager, {"mongo/key": ["_id"]})
    frame = pl.DataFrame(
        [
            pl.Series("_id", ["a", "b"]),
            pl.Series("price", [Decimal("35.50"), None], pl.Decimal(10, 2)),
            pl.Series("f", [float("nan"), None]),
        ]
    )
    direct.store(frame)
    assert_frame_equal(direct.load().sort("_id"), frame)
    direct.clean()


def test_a_collection_that_others_filled(asset: Direct) -> None:
    documents = [{"_id": "a", "n": 1, "at": AT, "l": [1]}, {"_id": "b", "s": "x", "f": 2.5}]
    asset.collection().insert_many(documents)
    assert asset.load().schema == {
        "_id": pl.String,
        "n": pl.Int64,
        "at": pl.Datetime("ms", "UTC"),
        "l": pl.List(pl.Int64),
        "s": pl.String,
        "f": pl.Float64,
    }
    asset.collection().insert_one({"_id": "c", "s": 5})
    with pytest.raises(MongoLoadError, match="Field 's' holds what does not fit"):
        asset.load()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ([1], "not a list"),
        (pl.LazyFrame({"a": [1]}), "LazyFrame has no rows yet"),
        (pl.DataFrame({"a.b": [1]}), "'a.b' is no name"),
        (pl.DataFrame({"a": [timedelta(1)]}), "Column 'a' cannot be stored with its dtype Dura"),
        (pl.DataFrame({"a": [object()]}), "Column 'a' cannot be stored with its dtype Object"),
        (pl.DataFrame({"a": [[timedelta(1)]]}), "Column 'a' cannot be stored with its dtype List"),
        (pl.DataFrame({"a": [10**16]}).cast(pl.Datetime("ms")), "outside of the years 1 to 9999"),
        (
            pl.DataFrame({"a": [2**63]}, schema={"a": pl.UInt64}),
            "Row 0 cannot be stored: field 'a'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stored_is_refused(uri: str, frame: object, message: str) -> None:
    direct = Direct(uri, MongoPolarsIOManager)
    with pytest.raises(MongoFrameError, match=message):
        direct.store(frame)


def test_an_objectid_of_others_is_its_text(asset: Direct) -> None:
    first, second = ObjectId(), ObjectId()
    asset.collection().insert_one({"_id": first, "deep": [{"id": second}]})
    assert asset.load().to_dicts() == [{"_id": str(first), "deep": [{"id": str(second)}]}]


def test_large_integers_within_and_beside_other_values(asset: Direct) -> None:
    documents = [
        {"_id": "a", "list": [2**40], "sub": {"n": 2**40}, "mixed": 2**40},
        {"_id": "b", "list": [], "sub": {"n": 1}, "mixed": 0.5},
    ]
    asset.collection().insert_many(documents)
    assert asset.load().sort("_id").to_dicts() == documents
