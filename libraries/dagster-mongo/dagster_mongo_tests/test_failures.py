"""What goes wrong is said, and storing again makes it right."""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from bson.datetime_ms import DatetimeMS
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from dagster_mongo import (
    MongoBulkWriteError,
    MongoConnectionError,
    MongoOperationError,
    MongoPandasIOManager,
    MongoResource,
    MongoSettingsError,
)

from .conftest import DATABASE, Store, stand_in_server

CLASHING = pd.DataFrame({"_id": list("abcdefgh"), "n": [7] * 7 + [8]})


def refused(store: Store) -> MongoBulkWriteError:
    """The error of storing rows of which some break a unique index."""
    with store.collection() as collection:
        collection.create_index("n", unique=True)
        collection.insert_one({"_id": "taken", "n": 7})
    with pytest.raises(MongoBulkWriteError) as caught:
        store.store(CLASHING, mode="upsert", key=["_id"])
    return caught.value


def test_a_refused_document_is_named_and_storing_again_completes_it(store: Store) -> None:
    error = refused(store)
    assert error.failures[0]["_id"] == "a"
    assert f"The collection {store.name!r} refused" in str(error)
    assert "of 8 documents, the first with the _id 'a' (code 11000: " in str(error)
    assert error.failures[0]["index"] in ("n_1", f"idx_{store.name}_n")
    assert f"Its unique index {error.failures[0]['index']!r} allows no two" in str(error)
    store.store(CLASHING.assign(n=range(10, 18)))
    assert store.documents().keys() == {"taken", *"abcdefgh"}


@pytest.mark.services
def test_all_refused_documents_are_counted_and_the_others_are_written(real_mongo: str) -> None:
    store = Store(real_mongo)
    error = refused(store)
    assert [failure["_id"] for failure in error.failures] == list("abcdefg")
    assert {failure["code"] for failure in error.failures} == {11000}
    assert (error.collection, error.attempted) == (store.name, 8)
    assert "refused 7 of 8 documents" in str(error)
    assert store.documents().keys() == {"taken", "h"}


@pytest.mark.services
def test_the_write_concern_of_the_address_holds(real_mongo: str) -> None:
    frame = pd.DataFrame({"n": [1]})
    with pytest.raises(MongoOperationError, match="'w' > 1 when a host is not replicated"):
        Store(f"{real_mongo}&w=3&wtimeoutMS=100").store(frame)
    store = Store(f"{real_mongo}&w=majority&journal=true&wtimeoutMS=1000")
    assert store.store(frame)["inserted"] == 1


def test_a_write_concern_that_is_not_met_is_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a replica set answers whose other members are away: the documents are written."""
    write = Collection.bulk_write

    def unconfirmed(*args: Any, **options: Any) -> None:
        write(*args, **options)
        error = {"code": 64, "errmsg": "waiting for replication timed out"}
        raise BulkWriteError({"writeErrors": [], "writeConcernErrors": [error]})

    monkeypatch.setattr(Collection, "bulk_write", unconfirmed)
    with pytest.raises(MongoBulkWriteError, match="The write concern was not met") as caught:
        store.store(pd.DataFrame({"n": [1]}))
    assert caught.value.failures == []


@pytest.mark.services
def test_a_document_with_a_date_that_python_cannot_hold_is_replaced(real_mongo: str) -> None:
    store = Store(real_mongo)
    with store.collection() as collection:
        collection.insert_one({"_id": "a", "until": DatetimeMS(2**60)})
    frame = pd.DataFrame({"_id": ["a"], "n": [1]})
    assert store.store(frame, mode="upsert", key=["_id"], version="n")["replaced"] == 1
    assert store.documents().keys() == {"a"}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"mod": "upsert"}, "Unknown metadata mongo/mod. Known are mongo/collection, mongo/datab"),
        ({"mode": "append"}, "mongo/mode cannot be 'append': Input should be 'ups"),
        ({"mode": "upsert"}, "Upsert mode needs mongo/key, or an _id"),
        ({"version": "n"}, "mongo/version goes with mongo/mode 'upsert'"),
        ({"version": "n", "mode": "upsert", "run_id": "n"}, "fields of their own"),
        ({"collection": ""}, "mongo/collection cannot be ''"),
        ({"key": "sku"}, "mongo/key cannot be 'sku'"),
        ({"created_at": True}, "mongo/created_at cannot be True"),
        ({"indexes": "n"}, "mongo/indexes cannot be"),
        ({"indexes": [{"unique": True}]}, "mongo/indexes cannot be"),
        ({"indexes": [["n", 1]]}, "mongo/indexes cannot be"),
        ({"created_at": "at", "run_id": "at"}, "fields of their own"),
        ({"key": ["a"], "run_id": "a"}, "fields of their own"),
        ({"run_id": "_row"}, "fields of their own"),
    ],
    ids=str,
)
def test_metadata_that_makes_no_sense(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(MongoSettingsError, match=message):
        Store("mongodb://127.0.0.1:1").store(pd.DataFrame({"a": [1]}), **metadata)


def test_a_server_that_dies_in_the_middle(tmp_path: Path) -> None:
    class Dying(MongoPandasIOManager):
        def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
            self.mongo.get_client()
            server.kill()
            server.wait()
            super().handle_output(context, obj)

    with stand_in_server(tmp_path) as (uri, server):
        mongo = MongoResource(uri=uri, database=DATABASE, server_selection_timeout_seconds=0.5)
        asset = Store(uri).asset(pd.DataFrame({"n": [1]}))
        with pytest.raises(MongoConnectionError, match=r"127\.0\.0\.1"):
            dg.materialize([asset], resources={"io_manager": Dying(mongo=mongo)})


WRITER = f"""
import sys
import dagster as dg
import pandas as pd
from dagster_mongo import MongoPandasIOManager, MongoResource

uri, name, version = sys.argv[1], sys.argv[2], int(sys.argv[3])

@dg.asset(name=name, metadata={{"mongo/mode": "replace", "mongo/key": ["_id"],
    "mongo/created_at": "created_at", "mongo/run_id": "run_id"}})
def rows() -> pd.DataFrame:
    frame = pd.DataFrame({{"_id": [f"{{i:05}}" for i in range(10_000)]}})
    print("storing", flush=True)
    return frame.assign(first=version, text="x" * 200, last=version)

mongo = MongoResource(uri=uri, database={DATABASE!r})
dg.materialize([rows], resources={{"io_manager": MongoPandasIOManager(mongo=mongo)}})
"""


@pytest.mark.services
def test_killed_at_any_moment_and_run_again_it_is_whole(real_mongo: str, tmp_path: Path) -> None:
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    store = Store(real_mongo)

    def start(version: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, str(script), store.uri, store.name, str(version)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout
        assert process.stdout.readline() == b"storing\n"
        return process

    process, started = start(0), time.monotonic()
    assert process.wait() == 0
    longest = time.monotonic() - started
    chance = random.Random(20)
    interrupted = version = 0
    with store.collection() as collection:
        while interrupted < 5:
            version += 1
            assert version < 99, "hardly any kill came while it was storing"
            process = start(version)
            time.sleep(chance.uniform(0, longest))
            process.kill()
            process.wait()
            documents = list(collection.find())
            assert all(d["first"] == d["last"] for d in documents)
            assert len(documents) == 10_000
            versions = {d["first"] for d in documents}
            interrupted += version in versions and len(versions) > 1
            longest *= 0.9 if versions == {version} else 1  # the kill came too late
        assert start(99).wait() == 0
        documents = list(collection.find())
        collection.drop()
    assert len(documents) == len({d["_id"] for d in documents}) == 10_000
    assert all(d["first"] == d["last"] == 99 and d["created_at"] for d in documents)
    assert len({d["run_id"] for d in documents}) == 1
