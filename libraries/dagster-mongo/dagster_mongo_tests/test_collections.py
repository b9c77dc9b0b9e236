"""Collections: their names and indexes, and who may share one."""

from typing import Any

import dagster as dg
import pandas as pd
import pytest

from dagster_mongo import (
    MongoPandasIOManager,
    MongoResource,
    MongoSettingsError,
)

from .conftest import values
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
def test_documents_of_others_are_not_replaced(named: Any) -> None:
    """Real MongoDB only, since the name has a dot."""
    asset = named("claimed/by")
    asset.collection().insert_one({"_id": "theirs"})
    with pytest.raises(MongoSettingsError, match="has documents already that the asset"):
        asset.store(FRAME)
    asset.metadata["mongo/mode"] = "upsert"
    asset.metadata["mongo/key"] = ["n"]
    asset.store(FRAME)
    assert {document["_id"] for document in asset.collection().find()} == {"theirs", 1}


@pytest.mark.services
def test_the_database_follows_from_metadata_manager_and_resource(real_mongo: str) -> None:
    """The stand-in has one database."""
    mongo = MongoResource(uri=real_mongo.replace("/?", "/dm_path?"))

    def table(metadata: dict[str, Any], **fields: Any) -> str:
        manager = MongoPandasIOManager(mongo=mongo, **fields)
        context = dg.build_output_context(
            asset_key=dg.AssetKey(["dm_x", "t"]), definition_metadata=metadata, run_id="run"
        )
        manager.handle_output(context, FRAME)
        return str(values(context.get_logged_metadata())["dagster/table_name"])

    try:
        assert table({}) == "dm_path.dm_x.t"
        assert table({}, database="dm_s") == "dm_s.dm_x.t"
        assert table({}, schema="dm_s") == "dm_s.dm_x.t"
        assert table({"schema": "dm_m"}, database="dm_s") == "dm_m.dm_x.t"
        assert table({"mongo/database": "dm_m"}, schema="dm_s") == "dm_m.dm_x.t"
        assert mongo.get_client()["dm_m"]["dm_x.t"].count_documents({}) == 1
    finally:
        for name in ("dm_path", "dm_s", "dm_m"):
            mongo.get_client().drop_database(name)
        mongo.close()


def test_settings_without_their_prefix_are_pointed_out(
    uri: str, capfd: pytest.CaptureFixture[str]
) -> None:
    direct = Direct(uri, metadata={"mode": "upsert", "key": ["n"], "mongo/run_id": "run"})
    direct.store(FRAME)
    said = capfd.readouterr().err
    assert said.count("Metadata 'mode' does nothing: its name is 'mongo/mode'.") == 1
    assert said.count("its name is") == 2
    direct.clean()


@pytest.mark.services
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"name": "n_1"}, {"keys": [("n", 1)], "unique": True}),
        ({"name": "other"}, {"keys": [("n", 1)], "expireAfterSeconds": 9}),
    ],
    ids=["86", "85"],
)
def test_indexes_of_somebody_else_are_a_warning(
    real_mongo: str, capfd: pytest.CaptureFixture[str], theirs: Any, ours: Any
) -> None:
    """The stand-in takes any indexes."""
    direct = Direct(real_mongo, metadata={"mongo/indexes": [ours, [("m", 1)]], "mongo/key": ["n"]})
    direct.metadata["mongo/mode"] = "upsert"
    direct.collection().create_index([("n", 1)], **theirs)
    direct.store(FRAME)
    assert capfd.readouterr().err.count("lacks indexes") == 1
    assert len(direct.load()) == 1
    assert "m_1" in direct.collection().index_information()
    direct.clean()


def test_an_index_that_is_there_by_another_name_will_do(
    uri: str, capfd: pytest.CaptureFixture[str]
) -> None:
    direct = Direct(uri, metadata={"mongo/indexes": [[("n", 1)]], "mongo/key": ["n"]})
    direct.metadata["mongo/mode"] = "upsert"
    direct.collection().create_index([("n", 1)], name="of_the_dba")
    direct.store(FRAME)
    assert "lacks indexes" not in capfd.readouterr().err
    assert len(direct.collection().index_information()) == 2
    direct.clean()


def test_w_0_is_refused(uri: str) -> None:
    with pytest.raises(MongoSettingsError, match="w=0 would hide"):
        Direct(f"{uri}&w=0").store(FRAME)
