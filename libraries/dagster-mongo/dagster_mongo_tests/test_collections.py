"""Collections: their names, options, validators and indexes, and who may share one."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from dagster_mongo import (
    MongoBulkWriteError,
    MongoDocumentsIOManager,
    MongoOperationError,
    MongoPandasIOManager,
    MongoResource,
    MongoSettingsError,
)

from .conftest import DATABASE, values
from .direct import Direct

FRAME = pd.DataFrame({"n": [1]})


@pytest.fixture
def named(real_mongo: str) -> Any:
    """Stores an asset in the collection that follows from its key.

    Real MongoDB only: the stand-in has no collections with a dot in their name.
    """
    used: list[Direct] = []

    def make(asset: str, fields: dict[str, Any] | None = None, **metadata: Any) -> Direct:
        direct = Direct(real_mongo, asset=asset, metadata=metadata, fields=fields or {})
        direct._metadata = lambda: metadata  # type: ignore[method-assign]
        direct.name = asset.replace("/", ".")
        used.append(direct)
        return direct

    yield make
    for direct in used:
        direct.clean()


@pytest.mark.services
def test_different_assets_have_different_collections(named: Any) -> None:
    one, two = named("named/b_c"), named("named_b/c")
    assert one.store(FRAME)["collection"] == "named.b_c"
    assert two.store(FRAME.assign(n=2))["collection"] == "named_b.c"
    assert (one.load()["n"].tolist(), two.load()["n"].tolist()) == ([1], [2])


@pytest.mark.services
def test_an_asset_in_its_former_collection_is_pointed_out(named: Any) -> None:
    former = named("former/prices", **{"mongo/collection": "former_prices"})
    former.store(FRAME)
    for act in (lambda: named("former/prices").store(FRAME), named("former/prices").load):
        with pytest.raises(MongoSettingsError, match="set mongo/collection to 'former_prices'"):
            act()
    former.name = "former_prices"


@pytest.mark.services
def test_a_collection_is_shared_only_if_nothing_is_deleted(named: Any) -> None:
    shared = {"mongo/collection": "shared_by_two", "mongo/key": ["n"]}
    one = named("shared_one", **shared, **{"mongo/mode": "upsert"})
    one.store(FRAME)
    two = named("shared_two", **shared)
    with pytest.raises(MongoSettingsError, match="'shared_one' is in the collection"):
        two.store(FRAME)
    named("shared_two", **shared, **{"mongo/mode": "upsert"}).store(FRAME.assign(n=2))
    for direct in (one, two):
        direct.name = "shared_by_two"


@pytest.mark.services
def test_the_database_follows_from_metadata_manager_or_key_prefix(real_mongo: str) -> None:
    """The stand-in has one database."""
    mongo = MongoResource(uri=real_mongo, database=DATABASE)

    def table(key: list[str], metadata: dict[str, Any], **fields: Any) -> str:
        manager = MongoPandasIOManager(mongo=mongo, **fields)
        context = dg.build_output_context(
            asset_key=dg.AssetKey(key), definition_metadata=metadata, run_id="run"
        )
        manager.handle_output(context, FRAME)
        return str(values(context.get_logged_metadata())["dagster/table_name"])

    try:
        assert table(["dm_x", "t"], {}) == f"{DATABASE}.dm_x.t"
        assert table(["dm_x", "t"], {}, schema="dm_s") == "dm_s.dm_x.t"
        assert table(["dm_x", "t"], {}, key_prefix="database") == "dm_x.t"
        assert table(["t"], {}, key_prefix="database") == f"{DATABASE}.t"
        assert table(["t"], {"schema": "dm_m"}, schema="dm_s") == "dm_m.t"
        assert mongo.get_client()["dm_m"]["t"].count_documents({}) == 1
    finally:
        for name in ("dm_x", "dm_s", "dm_m"):
            mongo.get_client().drop_database(name)
        for name in ("t", "dm_x.t"):
            mongo.get_collection(name).drop()
            mongo.get_collection("dagster_mongo_schemas").delete_many({"collection": name})
            mongo.get_collection("dagster_mongo_schemas").delete_one({"_id": f"{name}:t"})
            mongo.get_collection("dagster_mongo_schemas").delete_one({"_id": f"{name}:dm_x/t"})
        mongo.close()


@pytest.fixture
def asset(real_mongo: str) -> Any:
    """Real MongoDB only: the stand-in takes these options and does nothing about them."""
    direct = Direct(real_mongo, MongoDocumentsIOManager)
    yield direct
    direct.clean()


@pytest.mark.services
def test_a_ttl_index(asset: Direct) -> None:
    asset.metadata = {"mongo/expire_after": {"at": 3600}}
    for _ in range(2):
        asset.store([{"at": datetime.now(UTC)}])
    assert asset.collection().index_information()["at_1"]["expireAfterSeconds"] == 3600
    asset.metadata = {"mongo/expire_after": {"at": 60}}
    # A full server changes the index; the engine of these tests lacks the command.
    with pytest.raises(MongoOperationError, match="lacks the command"):
        asset.store([])


@pytest.mark.services
def test_a_validator(asset: Direct) -> None:
    validator = {"$jsonSchema": {"required": ["n"]}}
    asset.metadata = {"mongo/validator": validator}
    asset.store([{"n": 1}])
    asset.store([{"n": 1}])
    assert asset.collection().options()["validator"] == validator
    with pytest.raises(MongoBulkWriteError, match=r"1 of 1 documents were refused .*validation"):
        asset.store([{"m": 1}])


@pytest.mark.services
def test_a_time_series_collection(asset: Direct) -> None:
    days = dg.DailyPartitionsDefinition("2026-11-01", end_offset=20)
    asset.partitions = days
    asset.metadata = {
        "mongo/time_series": {"timeField": "at", "metaField": "paper", "expireAfterSeconds": 9**9},
        "mongo/run_id": "run_id",
        "partition_expr": "at",
    }
    rows = [{"at": datetime(2026, 11, 2, hour, tzinfo=UTC), "paper": "x"} for hour in range(3)]
    assert asset.store(rows, "2026-11-02")["inserted"] == 3
    asset.store([{**rows[0], "at": datetime(2026, 11, 3, tzinfo=UTC)}], "2026-11-03")
    metadata = asset.store(rows[:2], "2026-11-02")
    assert (metadata["inserted"], metadata["deleted"]) == (2, 3)
    assert len(asset.load("2026-11-02")) == 2
    assert len(asset.load()) == 3
    assert asset.collection().options()["timeseries"]["metaField"] == "paper"


@pytest.mark.services
def test_a_time_series_of_a_frame(real_mongo: str) -> None:
    direct = Direct(real_mongo, metadata={"mongo/time_series": {"timeField": "at"}})
    frame = pd.DataFrame({"at": pd.to_datetime(["2026-11-02T10:00Z"]), "n": [1]})
    for _ in range(2):
        direct.store(frame)
    pd.testing.assert_frame_equal(direct.load(), frame)
    direct.clean()


def test_read_concerns(uri: str) -> None:
    direct = Direct(uri, metadata={"mongo/read_concern": "local"})
    direct.store(FRAME)
    assert len(direct.load()) == 1
    direct.clean()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"mongo/read_concern": 1}, "mongo/read_concern is a level"),
        ({"mongo/expire_after": 60}, "mongo/expire_after is one date field"),
        ({"mongo/expire_after": {"at": "x"}}, "mongo/expire_after is one date field"),
        ({"mongo/validator": []}, "mongo/validator is a query"),
        ({"mongo/time_series": {"metaField": "x"}}, "mongo/time_series is options"),
        (
            {"mongo/time_series": {"timeField": "x"}, "mongo/key": ["x"]},
            "A time-series collection has no unique _id",
        ),
        ({"schema": 5}, "schema is the name of a database"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(MongoSettingsError, match=message):
        Direct("mongodb://127.0.0.1:1", metadata=metadata).store(FRAME)
