"""Columns come, go and change between stores: every row loads whole, or its store is refused."""

import math
import os
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_mongo import (
    MongoFrameError,
    MongoLoadError,
    MongoPandasIOManager,
    MongoPolarsIOManager,
)
from dagster_mongo.pandas_dtypes import parse, widened
from dagster_mongo.polars_dtypes import name_of
from dagster_mongo.polars_dtypes import widened as polars_widened

from .direct import Direct

PARTS = dg.StaticPartitionsDefinition(["a", "b", "c"])

INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5)
# The stand-in has no infinity; test_documents.py has it, on a real server.
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9).map(float)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)


def bits(number: int, low: int = -1) -> st.SearchStrategy[int]:
    return st.integers(low * 2 ** (number - 1), 2 ** (number - 1) - 1)


PANDAS: dict[str, tuple[st.SearchStrategy[Any], bool]] = {  # dtype: values, whether nulls fit
    "int64": (INTEGERS, False),
    "int8": (bits(8), False),
    "uint16": (bits(16, 0), False),
    "Int64": (INTEGERS, True),
    "Int32": (bits(32), True),
    "float64": (FLOATS, True),
    "float32": (st.floats(width=32, allow_nan=False, allow_infinity=False), True),
    "Float64": (FLOATS, True),
    "bool": (st.booleans(), False),
    "boolean": (st.booleans(), True),
    "str": (TEXTS, True),
    "string": (TEXTS, True),
    "category": (TEXTS, True),
    "object": (TEXTS | st.integers(-5, 5) | st.booleans() | st.just({"a": [1]}), True),
    "datetime64[us, UTC]": (MOMENTS.map(lambda m: m.replace(tzinfo=UTC)), True),
    "datetime64[ms, America/Sao_Paulo]": (MOMENTS.map(lambda m: m.replace(tzinfo=UTC)), True),
    "datetime64[ns]": (MOMENTS, True),
}
POLARS: list[tuple[pl.DataType, st.SearchStrategy[Any]]] = [
    (pl.Int64(), INTEGERS),
    (pl.Int8(), bits(8)),
    (pl.UInt32(), bits(32, 0)),
    (pl.Float64(), FLOATS),
    (pl.Float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    (pl.Boolean(), st.booleans()),
    (pl.String(), TEXTS),
    (pl.Categorical(), TEXTS),
    (pl.Enum(["x", "y"]), st.sampled_from(["x", "y"])),
    (pl.Datetime("us", "UTC"), MOMENTS.map(lambda m: m.replace(tzinfo=UTC))),
    (pl.Datetime("ms", "Asia/Tokyo"), MOMENTS.map(lambda m: m.replace(tzinfo=UTC))),
    (pl.Datetime("ns"), MOMENTS),
    (pl.Date(), MOMENTS.map(lambda m: m.date())),
    (pl.Null(), st.none()),
    (pl.List(pl.Int64), st.lists(INTEGERS, max_size=2)),
    (
        pl.Struct({"a": pl.Int64, "b": pl.String}),
        st.fixed_dictionaries({"a": INTEGERS, "b": TEXTS}),
    ),
]


@st.composite
def pandas_frames(draw: st.DrawFn, part: str) -> pd.DataFrame:
    rows = draw(st.integers(0, 3))
    numbers = draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows, unique=True))
    columns: dict[str, Any] = {
        "_id": pd.Series([f"{part}{n}" for n in numbers], dtype="str"),
        "part": pd.Series([part] * rows, dtype="str"),
    }
    for name in draw(st.lists(st.sampled_from("xyz"), unique=True)):
        dtype = draw(st.sampled_from(list(PANDAS)))
        strategy, nulls = PANDAS[dtype]
        values = draw(
            st.lists(strategy | st.none() if nulls else strategy, min_size=rows, max_size=rows)
        )
        columns[name] = series_of(values, dtype)
    return pd.DataFrame(columns)


def series_of(values: list[Any], dtype: Any) -> "pd.Series[Any]":
    known = parse(dtype)
    if isinstance(known, pd.DatetimeTZDtype):
        return pd.Series(values, dtype=f"datetime64[{known.unit}, UTC]").dt.tz_convert(known.tz)
    return pd.Series(values, dtype=dtype)


@st.composite
def polars_frames(draw: st.DrawFn, part: str) -> pl.DataFrame:
    rows = draw(st.integers(0, 3))
    numbers = draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows, unique=True))
    columns = [
        pl.Series("_id", [f"{part}{n}" for n in numbers], pl.String),
        pl.Series("part", [part] * rows, pl.String),
    ]
    for name in draw(st.lists(st.sampled_from("xyz"), unique=True)):
        dtype, strategy = draw(st.sampled_from(POLARS))
        values = draw(st.lists(strategy | st.none(), min_size=rows, max_size=rows))
        columns.append(pl.Series(name, values, dtype))
    return pl.DataFrame(columns)


def plain(value: Any) -> Any:
    """A value without what differs between dtypes that hold the same."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, datetime):
        moment = pd.Timestamp(value)
        moment = moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment
        return moment.floor("ms").to_pydatetime(warn=False)
    return value


def rows_of(frame: Any) -> dict[str, dict[str, Any]]:
    """The rows by their `_id`, without what is null."""
    records = frame.to_dicts() if isinstance(frame, pl.DataFrame) else frame.to_dict("records")
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        row = {name: plain(value) for name, value in record.items()}
        rows[row["_id"]] = {name: value for name, value in row.items() if value is not None}
    return rows


def dtypes_of(frame: Any) -> dict[str, str]:
    if isinstance(frame, pl.DataFrame):
        return {name: name_of(name, dtype) for name, dtype in frame.schema.items()}
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


class History:
    """What has been stored in an asset of partitions, and what therefore has to load."""

    def __init__(self, uri: str, kind: Any, mode: str) -> None:
        metadata = {"partition_expr": "part", "mongo/key": ["_id"], "mongo/mode": mode}
        # One collection for all: to make and to drop one takes longer than the rest.
        self.direct = Direct(uri, kind, metadata, PARTS, name=f"evolution_{os.getpid()}")
        self.replaces = mode == "replace"
        self.rows: dict[str, dict[str, Any]] = {part: {} for part in "abc"}
        self.dtypes: dict[str, set[str]] = {}

    def store(self, part: str, frame: Any) -> None:
        try:
            self.direct.store(frame, part)
        except MongoFrameError as error:
            refusal = str(error)
        else:
            refusal = ""
        if refusal:
            assert refusal[0].isupper()
            assert refusal.endswith(".")
            return
        new = rows_of(frame)
        self.rows[part] = new if self.replaces else {**self.rows[part], **new}
        for name, dtype in dtypes_of(frame).items():
            self.dtypes.setdefault(name, set()).add(dtype)

    def check(self) -> None:
        whole = self.direct.load()
        expected = {id: row for rows in self.rows.values() for id, row in rows.items()}
        assert rows_of(whole) == expected
        assert {*dtypes_of(whole)} == {*self.dtypes}
        for part, rows in self.rows.items():
            loaded = self.direct.load(part)
            assert rows_of(loaded) == rows
            assert list(loaded.columns) == list(whole.columns)
            self.check_dtypes(loaded)

    def check_dtypes(self, loaded: Any) -> None:
        """A column that always had one dtype has it still."""
        for name, dtype in dtypes_of(loaded).items():
            if len(self.dtypes[name]) == 1:
                (stored,) = self.dtypes[name]
                nulls_in_whole_numbers = {stored.capitalize(), stored.replace("uint", "UInt")}
                assert dtype in {stored, *nulls_in_whole_numbers, f"{stored}ean"}


PROPERTY = settings(
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "6")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
STEPS = st.lists(st.sampled_from("abc"), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("kind", "frames"),
    [(MongoPandasIOManager, pandas_frames), (MongoPolarsIOManager, polars_frames)],
    ids=["pandas", "polars"],
)
@pytest.mark.parametrize("mode", ["replace", "upsert"])
@PROPERTY
@given(data=st.data())
def test_every_row_loads_whole_or_its_store_is_refused(
    uri: str, kind: Any, frames: Any, mode: str, data: st.DataObject
) -> None:
    history = History(uri, kind, mode)
    try:
        for part in data.draw(STEPS):
            history.store(part, data.draw(frames(part)))
        history.check()
    finally:
        history.direct.empty()
        history.direct.mongo.close()


@pytest.fixture
def prices(uri: str) -> Any:
    history = History(uri, MongoPandasIOManager, "replace")
    yield history.direct
    history.direct.clean()


def day(part: str, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"_id": [part], "part": [part], **columns})


def test_a_column_that_went_and_one_that_changed_its_dtype(prices: Direct) -> None:
    prices.store(day("a", price=[9.5], note=["x"]), "a")
    prices.store(day("b", price=[9]), "b")
    assert prices.load("a").to_dict("records") == [
        {"_id": "a", "part": "a", "price": 9.5, "note": "x"}
    ]
    assert prices.load("b")["price"].tolist() == [9.0]
    assert prices.load()["price"].dtype == "float64"


def test_a_dtype_that_does_not_go_with_the_others_is_refused(prices: Direct) -> None:
    prices.store(day("a", price=[9.5]), "a")
    with pytest.raises(MongoFrameError, match="Column 'price' is str, but float64 in what is"):
        prices.store(day("b", price=["free"]), "b")
    assert len(prices.load()) == 1


def test_a_dtype_may_change_when_no_value_of_the_old_one_is_left(prices: Direct) -> None:
    prices.store(day("a", price=[9.5]), "a")
    prices.store(day("a", price=["free"]), "a")
    assert prices.load()["price"].tolist() == ["free"]


def test_integers_that_a_float_cannot_hold_are_refused(prices: Direct) -> None:
    prices.store(day("a", n=[2**53 + 1]), "a")
    with pytest.raises(MongoFrameError, match=r"integers beyond 2\*\*53"):
        prices.store(day("b", n=[0.5]), "b")
    prices.store(day("a", n=[0.5]), "a")
    with pytest.raises(MongoFrameError, match=r"integers beyond 2\*\*53 in 'the DataFrame'"):
        prices.store(day("b", n=[-(2**53) - 1]), "b")


def test_a_column_of_nulls_takes_the_dtype_of_the_first_values(prices: Direct) -> None:
    prices.store(day("a", note=pd.Series([None], dtype="float64")), "a")
    prices.store(day("b", note=["x"]), "b")
    assert prices.load().sort_values("_id")["note"].dropna().tolist() == ["x"]


def test_a_store_of_everything_anew_forgets_the_columns_before(uri: str) -> None:
    direct = Direct(uri, metadata={"mongo/key": ["_id"]})
    direct.store(pd.DataFrame({"_id": ["a"], "n": [1], "gone": ["x"]}))
    direct.store(pd.DataFrame({"_id": ["b"], "n": ["one"]}))
    assert direct.load().to_dict("list") == {"_id": ["b"], "n": ["one"]}
    direct.clean()


def test_fields_that_others_add_are_loaded(prices: Direct) -> None:
    prices.store(day("a", price=[9.5]), "a")
    seen = {"times": 3, "last": datetime(2026, 1, 1, tzinfo=UTC)}
    prices.collection().insert_one({"_id": "b", "part": "b", "price": 1.5, "seen": seen})
    assert prices.load("b").to_dict("records") == [
        {"_id": "b", "part": "b", "price": 1.5, "seen": seen}
    ]


def test_values_that_others_wrote_and_that_do_not_fit_are_an_error(prices: Direct) -> None:
    prices.store(day("a", price=[9.5]), "a")
    prices.collection().insert_one({"_id": "b", "part": "b", "price": "free"})
    with pytest.raises(MongoLoadError, match="Field 'price' holds what does not fit its dtype"):
        prices.load()


@pytest.mark.parametrize(
    ("kept", "new", "both"),
    [
        ("int8", "int16", "int16"),
        ("int8", "uint8", "int16"),
        ("uint64", "int64", "int64"),
        ("int64", "Int8", "Int64"),
        ("UInt8", "uint16", "UInt16"),
        ("int64", "float32", "float64"),
        ("float32", "Float64", "Float64"),
        ("bool", "boolean", "boolean"),
        ("str", '["category", ["a"], false]', "str"),
        ('["category", ["a"], true]', '["category", ["b"], true]', "str"),
        ("int64", "object", "object"),
        ("datetime64[us, UTC]", "datetime64[ns, UTC]", "datetime64[ms, UTC]"),
        ("datetime64[us, UTC]", "datetime64[us, Asia/Tokyo]", "datetime64[us, UTC]"),
        ("datetime64[us, UTC]", "datetime64[us]", None),
        ("bool", "int64", None),
        ("str", "float64", None),
    ],
)
def test_the_rules_of_widening_for_pandas(kept: str, new: str, both: str | None) -> None:
    assert widened(kept, new) == widened(new, kept) == both


@pytest.mark.parametrize(
    ("kept", "new", "both"),
    [
        (pl.Int8(), pl.Int32(), pl.Int32()),
        (pl.Int8(), pl.UInt8(), pl.Int16()),
        (pl.UInt64(), pl.Int8(), pl.Int64()),
        (pl.Int64(), pl.Float32(), pl.Float64()),
        (pl.String(), pl.Enum(["x"]), pl.String()),
        (pl.Null(), pl.List(pl.Int8), pl.List(pl.Int8)),
        (pl.List(pl.Int8), pl.List(pl.Int64), pl.List(pl.Int64)),
        (pl.List(pl.Int8), pl.List(pl.Float64), None),
        (pl.Decimal(10, 2), pl.Decimal(8, 4), pl.Decimal(12, 4)),
        (pl.Datetime("us", "UTC"), pl.Datetime("ns", "Asia/Tokyo"), pl.Datetime("ms", "UTC")),
        (pl.Datetime("us", "UTC"), pl.Datetime("us"), None),
        (pl.Date(), pl.Datetime("us"), None),
        (pl.String(), pl.Int8(), None),
    ],
    ids=str,
)
def test_the_rules_of_widening_for_polars(
    kept: pl.DataType, new: pl.DataType, both: pl.DataType | None
) -> None:
    expected = None if both is None else name_of("", both)
    assert polars_widened(name_of("", kept), name_of("", new)) == expected
    assert polars_widened(name_of("", new), name_of("", kept)) == expected
