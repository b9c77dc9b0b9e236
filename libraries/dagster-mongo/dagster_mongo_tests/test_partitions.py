"""A store changes its partitions and nothing else; a load gets them and nothing else."""

from datetime import datetime
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from dagster_mongo import MongoFrameError, MongoSettingsError

from .conftest import Store, values

# Two hours on each working day: a range over days has gaps.
SESSIONS = dg.TimeWindowPartitionsDefinition(
    start=datetime(2026, 11, 12),
    fmt="%Y-%m-%dT%H:%M%z",
    cron_schedule="0 10-12 * * 1-5",
    exclusions=["0 12 * * 1-5"],
    timezone="America/Sao_Paulo",
)
FRIDAY = ("2026-11-13T10:00-0300", "2026-11-13T11:00-0300")
MONDAY = ("2026-11-16T10:00-0300", "2026-11-16T11:00-0300")
MODES = pytest.mark.parametrize("mode", ["upsert", "replace"])


def rows(*moments: str, n: int = 1) -> pd.DataFrame:
    at = pd.to_datetime(list(moments), utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    return pd.DataFrame({"_id": list(moments), "at": at, "n": n})


def by_time(store: Store, mode: str = "replace") -> Store:
    store.partitions = SESSIONS
    store.metadata = {"partition_expr": "at", "mongo/key": ["_id"], "mongo/mode": mode}
    return store


def ids(store: Store) -> list[str]:
    return sorted(store.documents())


@MODES
def test_a_window_is_half_open(store: Store, mode: str) -> None:
    by_time(store, mode)
    edges = ["2026-11-13T13:00:00Z", "2026-11-13T13:59:59.999999999Z"]
    metadata = store.store(rows(*edges), FRIDAY[0])
    assert metadata["dagster/partition_row_count"] == 2
    assert "dagster/row_count" not in metadata
    assert len(store.load(FRIDAY[0])) == 2
    assert len(store.load(FRIDAY[1])) == 0
    assert store.load(FRIDAY[1]).dtypes.equals(store.load(FRIDAY[0]).dtypes)


@MODES
@pytest.mark.parametrize("outside", ["2026-11-13T14:00:00Z", "2026-11-13T12:59:59Z", "NaT"])
def test_a_row_of_another_partition_is_refused(store: Store, mode: str, outside: str) -> None:
    by_time(store, mode)
    frame = rows("2026-11-13T13:00Z", "2026-11-13T13:30Z")
    frame["at"] = pd.DatetimeIndex(["2026-11-13T13:00:00Z", outside])
    with pytest.raises(MongoFrameError, match=r"Row 1 .* belongs to none of the partitions"):
        store.store(frame, FRIDAY[0])
    assert store.documents() == {}


def test_storing_a_partition_again_replaces_that_one_only(store: Store) -> None:
    by_time(store)
    store.store(rows("2026-11-13T13:00Z", "2026-11-13T13:30Z"), FRIDAY[0])
    store.store(rows("2026-11-13T14:00Z"), FRIDAY[1])
    metadata = store.store(rows("2026-11-13T13:30Z", "2026-11-13T13:45Z"), FRIDAY[0])
    assert metadata["deleted"] == 1
    assert ids(store) == ["2026-11-13T13:30Z", "2026-11-13T13:45Z", "2026-11-13T14:00Z"]


@MODES
def test_an_empty_partition(store: Store, mode: str) -> None:
    by_time(store, mode)
    frame = rows("2026-11-13T13:00Z")
    store.store(frame, FRIDAY[0])
    metadata = store.store(frame.iloc[:0], FRIDAY[0])
    assert (metadata["rows"], metadata["dagster/partition_row_count"]) == (0, 0)
    left = store.load(FRIDAY[0])
    assert len(left) == (1 if mode == "upsert" else 0)
    assert left.dtypes.equals(frame.dtypes)


def test_a_range_stores_and_loads_its_partitions_without_the_gaps(store: Store) -> None:
    by_time(store).store(rows("2026-11-13T13:00Z"), FRIDAY[0])
    between = ["2026-11-13T15:30Z", "2026-11-14T13:30Z"]  # after hours, and a Saturday
    with store.collection() as collection:
        collection.insert_many([{"_id": at, "at": pd.Timestamp(at), "n": 1} for at in between])
    frame = rows("2026-11-13T14:10Z", "2026-11-13T14:20Z", "2026-11-16T13:00Z")
    materializations = store.run(frame, [FRIDAY[1], MONDAY[0]])
    counted = {m.partition: values(m.metadata) for m in materializations}
    assert {k: m["dagster/partition_row_count"] for k, m in counted.items()} == {
        FRIDAY[1]: 2,
        MONDAY[0]: 1,
    }
    assert [metadata["rows"] for metadata in counted.values()] == [2, 1]
    assert all(metadata["run/rows"] == 3 for metadata in counted.values())
    assert ids(store) == sorted(["2026-11-13T13:00Z", *frame["_id"], *between])
    loaded = store.load(FRIDAY[1], MONDAY[0])
    pd.testing.assert_frame_equal(loaded, frame)


def test_an_asset_without_partitions_loads_them_all(store: Store) -> None:
    by_time(store)
    store.store(rows("2026-11-13T13:00Z"), FRIDAY[0])
    store.store(rows("2026-11-13T14:00Z"), FRIDAY[1])
    assert len(store.load()) == 2


def test_partitions_that_run_over_midnight_and_a_clock_change(store: Store) -> None:
    store.partitions = dg.DailyPartitionsDefinition("2026-10-24", timezone="Europe/Berlin")
    store.metadata = {"partition_expr": "at", "mongo/key": ["_id"]}
    last_hour = ["2026-10-24T22:00Z", "2026-10-25T22:59Z"]  # a day of 25 hours
    assert store.store(rows(*last_hour), "2026-10-25")["dagster/partition_row_count"] == 2
    assert len(store.load("2026-10-25")) == 2


def test_static_partitions(store: Store) -> None:
    store.partitions = dg.StaticPartitionsDefinition(["north", "south", "it's"])
    store.metadata = {"partition_expr": "region"}
    for region in ("north", "south", "it's"):
        store.store(pd.DataFrame({"region": [region] * 2, "n": [1, 2]}), region)
    metadata = store.store(pd.DataFrame({"region": ["south"], "n": [3]}), "south")
    assert (metadata["inserted"], metadata["deleted"]) == (1, 2)
    assert sorted(store.load("north", "south")["n"]) == [1, 2, 3]
    assert list(store.load("it's")["region"]) == ["it's"] * 2
    with pytest.raises(MongoFrameError, match="region='north'"):
        store.store(pd.DataFrame({"region": ["north"], "n": [3]}), "south")
    with pytest.raises(MongoSettingsError, match="This run has no partition"):
        store.store(pd.DataFrame({"region": ["south"], "n": [3]}))
    assert len(store.documents()) == 5


def test_dynamic_partitions(store: Store) -> None:
    name = f"customers_{store.name}"
    store.partitions = dg.DynamicPartitionsDefinition(name=name)
    store.metadata = {"partition_expr": "customer"}
    store.instance.add_dynamic_partitions(name, ["ann", "bob", "eve"])
    for customer in ("ann", "bob", "eve"):
        store.store(pd.DataFrame({"customer": [customer], "n": [1]}), customer)
    assert list(store.load("bob")["customer"]) == ["bob"]
    assert sorted(store.load("ann", "bob")["customer"]) == ["ann", "bob"]
    assert len(store.load()) == 3


@pytest.mark.parametrize("expression", [None, "", {"day": "at"}])
def test_a_partitioned_asset_has_to_say_by_which_column(store: Store, expression: Any) -> None:
    by_time(store).metadata = {"partition_expr": expression} if expression is not None else {}
    with pytest.raises(MongoSettingsError, match="does not say by which column"):
        store.store(pd.DataFrame({"at": [1]}), FRIDAY[0])


def test_partitions_of_several_dimensions_are_refused(store: Store) -> None:
    days = dg.DailyPartitionsDefinition("2026-11-20", end_offset=10)
    regions = dg.StaticPartitionsDefinition(["north", "south"])
    store.partitions = dg.MultiPartitionsDefinition({"day": days, "region": regions})
    store.metadata = {"partition_expr": "at"}
    key = dg.MultiPartitionKey({"day": "2026-11-20", "region": "south"})
    with pytest.raises(MongoSettingsError, match="Partitions of several dimensions cannot be"):
        store.store(pd.DataFrame({"at": [1]}), key)


@MODES
def test_a_key_without_the_partition_is_refused(store: Store, mode: str) -> None:
    by_time(store, mode).metadata["mongo/key"] = ["n"]
    frame = pd.DataFrame({"n": [1], "at": pd.to_datetime(["2026-11-13T13:00Z"])})
    with pytest.raises(MongoSettingsError, match=r"Set it to \['n', 'at'\]"):
        store.store(frame, FRIDAY[0])
    store.store(frame, FRIDAY[0], key=["n", "at"])
    store.store(frame.assign(at=pd.to_datetime(["2026-11-13T14:00Z"])), FRIDAY[1])
    assert len(store.documents()) == 2


@MODES
@pytest.mark.parametrize("key", [{}, {"key": ["_id"]}], ids=["no key", "_id"])
def test_an_id_of_another_partition_is_refused(
    store: Store, mode: str, key: dict[str, Any]
) -> None:
    by_time(store, mode).metadata.pop("mongo/key")
    frame = pd.DataFrame({"_id": [1], "at": pd.to_datetime(["2026-11-13T13:00Z"])})
    store.store(frame, FRIDAY[0], **key)
    with pytest.raises(MongoFrameError, match="another partition has the _id 1 in the collection"):
        store.store(frame.assign(at=pd.to_datetime(["2026-11-13T14:00Z"])), FRIDAY[1])
    assert len(store.load(FRIDAY[0])) == 1


def test_partitions_come_back_one_after_the_other_each_in_its_order(store: Store) -> None:
    by_time(store)
    later, earlier = ["2026-11-13T14:40Z", "2026-11-13T14:20Z"], ["2026-11-13T13:30Z"]
    store.store(rows(*later), FRIDAY[1])
    store.store(rows(*earlier, "2026-11-13T13:10Z"), FRIDAY[0])
    assert list(store.load()["_id"]) == [*earlier, "2026-11-13T13:10Z", *later]
    assert list(store.load(FRIDAY[1])["_id"]) == later


def test_a_frame_without_the_partition_column_is_refused(store: Store) -> None:
    with pytest.raises(MongoFrameError, match="no partition column 'at'"):
        by_time(store).store(pd.DataFrame({"_id": ["a"]}), FRIDAY[0])


def test_an_index_finds_the_partition_unless_there_is_one(store: Store) -> None:
    def leading() -> set[str]:
        with store.collection() as collection:
            return {next(iter(index["key"])) for index in collection.list_indexes()}

    by_time(store).store(rows("2026-11-13T13:00Z"), FRIDAY[0], indexes=[[("n", 1), ("at", 1)]])
    assert leading() == {"_id", "n", "at"}
    with store.collection() as collection:
        collection.drop()
    store.store(rows("2026-11-13T13:00Z"), FRIDAY[0], indexes=[[("at", -1), ("n", 1)]])
    with store.collection() as collection:
        assert len(list(collection.list_indexes())) == 2
