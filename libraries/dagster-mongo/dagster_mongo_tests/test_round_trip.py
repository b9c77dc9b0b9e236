"""What is stored comes back as it was."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from dateutil import tz

from dagster_mongo import MongoFrameError, MongoLoadError, MongoSettingsError

from .conftest import Store

HOUR = timedelta(hours=1)


def by_id(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("_id", ignore_index=True)


def every_kind() -> pd.DataFrame:
    moments = pd.DatetimeIndex(["2026-11-23 13:00:00.123", "NaT", "1961-04-12 06:07:00.999"])
    return pd.DataFrame(
        {
            "_id": ["a", "b", "c"],
            "text": ["Petróleo", "", None],
            "nullable_text": pd.array(["x", None, "y"], dtype="string"),
            "price": [1.5, np.nan, -0.25],
            "small": np.array([1.5, 2.5, np.nan], dtype="float32"),
            "volume": np.array([1, 2**53 + 1, -5], dtype="int64"),
            "tiny": np.array([1, 2, 3], dtype="int8"),
            "unsigned": np.array([1, 2, 3], dtype="uint16"),
            "maybe": pd.array([1, None, 2**53 + 1], dtype="Int64"),
            "flag": [True, False, True],
            "maybe_flag": pd.array([True, None, False], dtype="boolean"),
            "utc": pd.Series(moments.tz_localize("UTC")).astype("datetime64[us, UTC]"),
            "local": pd.Series(moments.tz_localize("America/Sao_Paulo")),
            "naive": pd.Series(moments).astype("datetime64[ns]"),
            "kind": pd.Series(["one", "two", "one"], dtype="category"),
        }
    )


def test_every_dtype_comes_back(store: Store) -> None:
    frame = every_kind()
    store.store(frame, key=["_id"])
    pd.testing.assert_frame_equal(store.load(), frame)


def test_categories_come_back_with_their_order_and_those_that_do_not_occur(store: Store) -> None:
    sizes = pd.CategoricalDtype(["S", "M", "L"], ordered=True)
    frame = pd.DataFrame(
        {
            "_id": ["a", "b"],
            "size": pd.Series(["M", None], dtype=sizes),
            "kind": pd.Categorical(["y", "y"], categories=["z", "y", "x"]),
        }
    )
    store.store(frame, key=["_id"])
    pd.testing.assert_frame_equal(store.load(), frame)
    with store.collection() as collection:
        collection.update_one({"_id": "a"}, {"$set": {"size": "XL"}})
    with pytest.raises(MongoLoadError, match="'XL' is none of its categories"):
        store.load()


def test_an_empty_frame_comes_back_with_its_dtypes(store: Store) -> None:
    frame = every_kind().iloc[:0]
    assert store.store(frame, key=["_id"])["rows"] == 0
    loaded = store.load()
    assert list(loaded.dtypes.astype(str)) == list(frame.dtypes.astype(str))
    assert list(loaded.columns) == list(frame.columns)


def test_an_empty_store_does_not_forget_the_dtypes(store: Store) -> None:
    store.store(every_kind(), key=["_id"], mode="upsert")
    store.store(pd.DataFrame())
    pd.testing.assert_frame_equal(by_id(store.load()), every_kind())


def test_nested_values_come_back(store: Store) -> None:
    at = datetime(2026, 11, 23, 13, 0, 0, 123_000, tzinfo=UTC)
    nested = {"list": [1, 2.5, None, {"at": at}], "text": "é", "flag": True, "bytes": b"\0\1"}
    frame = pd.DataFrame(
        {"_id": ["a", "b"], "nested": [nested, None], "mixed": pd.Series([1, "x"], dtype=object)}
    )
    store.store(frame, key=["_id"])
    pd.testing.assert_frame_equal(by_id(store.load()), frame)


def test_numpy_and_missing_values_in_object_columns_become_plain_ones(store: Store) -> None:
    odd = [np.int64(5), np.float32(0.5), np.array([1, 2]), pd.NA, pd.NaT, float("nan"), np.bool_(1)]
    odd.append({"deep": [pd.NA, pd.Timestamp("2026-11-23T10:00:00.0019-03:00")]})
    store.store(
        pd.DataFrame({"_id": list("abcdefgh"), "odd": pd.Series(odd, dtype=object)}), key=["_id"]
    )
    at = datetime(2026, 11, 23, 13, 0, 0, 1000)
    stored = [document["odd"] for document in store.documents().values()]
    assert stored == [5, 0.5, [1, 2], None, None, None, True, {"deep": [None, at]}]


@pytest.mark.parametrize("unit", ["D", "s", "ms", "us", "ns"])
def test_dates_of_numpy_are_dates_whatever_their_unit(store: Store, unit: str) -> None:
    """NumPy's own conversion makes a number of nanoseconds."""
    moment = np.datetime64("2026-11-23", unit)
    odd = [moment, np.array([moment, np.datetime64("NaT", unit)]), {"deep": moment}]
    store.store(pd.DataFrame({"_id": list("abc"), "odd": pd.Series(odd, dtype=object)}))
    at = datetime(2026, 11, 23)
    stored = [document["odd"] for document in store.documents().values()]
    assert stored == [at, [at, None], {"deep": at}]


@pytest.mark.parametrize(
    "value",
    [
        np.timedelta64(1, "ns"),
        np.timedelta64(1, "s"),
        np.array([1], "timedelta64[ns]"),
        np.datetime64("20000-01-01", "s"),
    ],
    ids=str,
)
def test_what_numpy_would_make_a_number_of_is_refused(store: Store, value: object) -> None:
    frame = pd.DataFrame({"_id": ["a"], "odd": pd.Series([[value]], dtype=object)})
    with pytest.raises(MongoFrameError, match="Row 0 cannot be stored: field 'odd'"):
        store.store(frame)
    assert store.documents() == {}


@pytest.mark.parametrize(
    "zone", [tz.gettz("America/Sao_Paulo"), tz.tzoffset(None, -10800), timezone(-HOUR, "UTC-1h")]
)
def test_a_zone_that_could_not_be_loaded_is_refused(store: Store, zone: Any) -> None:
    moments = pd.to_datetime(["2026-11-23"]).tz_localize(zone)
    with pytest.raises(MongoFrameError, match=r"Column 'at' has a time zone without a name"):
        store.store(pd.DataFrame({"at": moments}))
    assert store.documents() == {}


def test_an_offset_comes_back(store: Store) -> None:
    frame = pd.DataFrame({"at": pd.to_datetime(["2026-11-23"]).tz_localize(timezone(-3 * HOUR))})
    store.store(frame)
    pd.testing.assert_frame_equal(store.load(), frame)


@pytest.mark.services
def test_decimals_come_back(real_mongo: str) -> None:
    store = Store(real_mongo)
    frame = pd.DataFrame({"_id": ["a"], "price": pd.Series([Decimal("35.50")], dtype=object)})
    store.store(frame, key=["_id"])
    pd.testing.assert_frame_equal(store.load(), frame)


def test_dates_lose_what_is_finer_than_a_millisecond(store: Store) -> None:
    moments = pd.to_datetime(["2026-11-23T13:00:00.123999999Z", "1961-04-12T06:07:00.123999999Z"])
    store.store(pd.DataFrame({"_id": ["a", "b"], "at": moments}), key=["_id"])
    loaded = by_id(store.load())
    assert list(loaded["at"]) == list(moments.floor("ms"))
    assert loaded["at"].dtype == moments.dtype


def test_only_the_columns_asked_for(store: Store) -> None:
    store.store(every_kind(), key=["_id"], created_at="created", run_id="run")
    loaded = store.load(columns=["maybe", "created"])
    assert list(loaded.dtypes.astype(str).items()) == [
        ("maybe", "Int64"),
        ("created", "datetime64[ms, UTC]"),
    ]
    assert len(loaded) == 3
    with pytest.raises(MongoLoadError, match="No document has a field 'prize'"):
        store.load(columns=["prize"])
    with pytest.raises(MongoSettingsError, match="columns"):
        store.load(columns=[])


def test_a_collection_that_others_filled_is_loaded_by_what_is_in_it(store: Store) -> None:
    with store.collection() as collection:
        collection.insert_many(
            [{"_id": "a", "n": 1, "at": datetime(2026, 1, 1)}, {"_id": "b", "s": "x", "f": 2}]
        )
        collection.update_one({"_id": "b"}, {"$set": {"f": 2.5}})
    loaded = store.load()
    assert dict(loaded.dtypes.astype(str)) == {
        "_id": "str",
        "n": "Int64",
        "at": "datetime64[ms, UTC]",
        "s": "str",
        "f": "float64",
    }


def test_integers_that_came_to_have_nulls_stay_integers(store: Store) -> None:
    frame = pd.DataFrame({"_id": ["a", "b"], "n": [1, 2]})
    store.store(frame, key=["_id"])
    with store.collection() as collection:
        collection.replace_one({"_id": "b"}, {"_id": "b"})
    assert list(by_id(store.load())["n"].astype(object)) == [1, pd.NA]
    assert store.load()["n"].dtype == "Int64"


@pytest.mark.parametrize(("dtype", "value"), [("int64", 1.5), ("datetime64[us, UTC]", "soon")])
def test_a_value_that_does_not_fit_its_dtype_is_an_error(
    store: Store, dtype: Any, value: object
) -> None:
    store.store(pd.DataFrame({"_id": ["a"], "x": pd.Series([0], dtype=dtype)}), key=["_id"])
    with store.collection() as collection:
        collection.replace_one({"_id": "a"}, {"_id": "a", "x": value})
    with pytest.raises(MongoLoadError, match="Field 'x' holds what does not fit its dtype"):
        store.load()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ([1, 2], "not a list"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "same name"),
        (pd.DataFrame({"a.b": [1]}), "'a.b' is no name"),
        (pd.DataFrame({"$a": [1]}), "is no name"),
        (pd.DataFrame({1: [1]}), "1 is no name"),
        (pd.DataFrame({"a": [1]}, index=pd.Index([1], name="key")), "has an index of its own"),
        (pd.DataFrame({"a": [1]}, index=pd.to_datetime(["2026"])), r"own \(DatetimeIndex\)"),
        (pd.DataFrame({"a": [1]}, index=pd.Index(["x"])), "has an index of its own"),
        (pd.DataFrame({"a": [1]}, index=[[1], [2]]), r"own \(MultiIndex\)"),
        (pd.DataFrame({"_row": [1]}), "Field '_row' is set by the store"),
        (pd.DataFrame({"a": [Decimal(10**40 + 1)]}), "Row 0 .* field 'a': a decimal of 41 digits"),
        (pd.DataFrame({"a": [[1], [{"b": Decimal("1E-9000")}]]}), "Row 1 .*: a decimal of 1 dig"),
        (pd.DataFrame({"a": [date(2026, 1, 1)]}), "Row 0 .* field 'a': BSON has no date"),
        (pd.DataFrame({"a": pd.Categorical([1, 2])}), "Column 'a' has categories that are no text"),
        (pd.DataFrame({"a": [f"{n}" for n in range(10_001)]}, dtype="category"), "more than 10000"),
        (pd.DataFrame({"a": pd.to_timedelta([1], unit="s")}), "Column 'a' cannot be stored"),
        (pd.DataFrame({"a": pd.period_range("2026", periods=1)}), "Column 'a' cannot be stored"),
        (pd.DataFrame({"a": [2**63]}, dtype="uint64"), "Row 0 cannot be stored: field 'a'"),
        (pd.DataFrame({"a": [{1: "x"}]}), "Row 0 cannot be stored: field 'a'"),
        (pd.DataFrame({"a": ["x" * 17_000_000]}), "Row 0 has 170"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stored_is_refused_before_anything_is(
    store: Store, frame: object, message: str
) -> None:
    with pytest.raises(MongoFrameError, match=message):
        store.store(frame)
    assert store.documents() == {}


def test_metadata_of_a_store(store: Store) -> None:
    metadata = store.store(pd.DataFrame({"_id": ["a", "b"], "n": [1, 2]}), key=["_id"])
    assert metadata.pop("seconds") > 0
    schema = metadata.pop("dagster/column_schema")
    assert [(c.name, c.type) for c in schema.columns][1] == ("n", "int64")
    # A document of 23 bytes: 4 for its length, 9 for _id, 7 for n, and its end.
    assert metadata == {
        "rows": 2,
        "inserted": 2,
        "replaced": 0,
        "unchanged": 0,
        "deleted": 0,
        "bytes": 2 * 23,
        "collection": store.name,
        "dagster/row_count": 2,
        "dagster/table_name": f"dagster_mongo_tests.{store.name}",
        "dagster/storage_kind": "mongodb",
    }


def test_ops_name_their_collection_themselves(store: Store) -> None:
    seen: list[Any] = []

    @dg.op(out=dg.Out(metadata={"mongo/collection": store.name}))
    def make() -> pd.DataFrame:
        return pd.DataFrame({"n": [1, 2]})

    @dg.op
    def take(frame: pd.DataFrame) -> None:
        seen.append(sorted(frame["n"]))

    @dg.job(resource_defs=store.resources)
    def job() -> None:
        take(make())

    assert job.execute_in_process().success
    assert seen == [[1, 2]]


def test_an_asset_check_and_a_script_load_it_too(store: Store) -> None:
    store.store(pd.DataFrame({"_id": ["a"], "n": [1]}), key=["_id"])
    asset = store.asset()
    seen = []

    @dg.asset_check(asset=asset)
    def counted(frame: pd.DataFrame) -> dg.AssetCheckResult:
        seen.append(len(frame))
        return dg.AssetCheckResult(passed=True)

    job = dg.define_asset_job("check", selection=dg.AssetSelection.checks(counted))
    defs = dg.Definitions([asset], jobs=[job], asset_checks=[counted], resources=store.resources)
    assert defs.resolve_job_def("check").execute_in_process().success
    assert seen == [1]
    loaded = defs.load_asset_value(store.name, instance=store.instance)
    assert isinstance(loaded, pd.DataFrame)
    assert loaded.to_dict("list") == {"_id": ["a"], "n": [1]}


def test_a_field_of_integers_and_floats_that_others_wrote(store: Store) -> None:
    with store.collection() as collection:
        collection.insert_many([{"_id": "a", "n": 2**40}, {"_id": "b", "n": 0.5}])
    loaded = by_id(store.load())
    assert (loaded["n"].dtype, loaded["n"].tolist()) == ("float64", [2**40, 0.5])
