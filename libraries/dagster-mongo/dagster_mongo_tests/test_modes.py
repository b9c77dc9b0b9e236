"""Upsert and replace: what a store changes, and what it leaves alone."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pandas as pd
import pytest
from pymongo.collection import Collection

from dagster_mongo import MongoFrameError

from .conftest import Store
from .direct import Direct


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


def assert_counts(metadata: dict[str, Any], **expected: int) -> None:
    names = ("inserted", "replaced", "unchanged", "deleted")
    assert {name: metadata[name] for name in names if metadata.get(name)} == expected


def test_an_upsert_writes_its_rows_and_deletes_none(store: Store) -> None:
    store.store(frame(_id=["a", "b"], n=[1, 2]), mode="upsert", key=["_id"])
    metadata = store.store(frame(_id=["b", "c", "d"], n=[2, 3, 4]))
    assert_counts(metadata, inserted=2, unchanged=1)
    assert_counts(store.store(frame(_id=["d"], n=[5])), replaced=1)
    assert {k: d["n"] for k, d in store.documents().items()} == {"a": 1, "b": 2, "c": 3, "d": 5}


def test_a_replacement_deletes_what_the_frame_has_not(store: Store) -> None:
    store.store(frame(_id=["a", "b"], n=[1, 2]), mode="replace", key=["_id"])
    metadata = store.store(frame(_id=["b", "c"], n=[2, 3]))
    assert_counts(metadata, inserted=1, unchanged=1, deleted=1)
    assert store.documents().keys() == {"b", "c"}
    assert_counts(store.store(frame(_id=["a"], n=[1]).iloc[:0]), deleted=2)
    assert store.documents() == {}


@pytest.mark.parametrize("mode", ["upsert", "replace"])
def test_a_store_reads_from_the_primary_and_a_load_as_the_address_says(
    uri: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secondary lacks what was just written: rows that vanished would stay."""
    preferences = set()
    for name in ("find", "find_raw_batches"):
        read = getattr(Collection, name)

        def noted(self: Any, *arguments: Any, read: Any = read, **options: Any) -> Any:
            preferences.add(self.read_preference.mongos_mode)
            return read(self, *arguments, **options)

        monkeypatch.setattr(Collection, name, noted)
    direct = Direct(f"{uri}&readPreference=secondary", metadata={"mongo/mode": mode})
    direct.metadata["mongo/key"] = ["k"]
    for rows in (2, 1):
        direct.store(frame(k=range(rows), n=1))
    assert preferences == {"primary"}

    preferences.clear()
    direct.load()
    assert preferences == {"secondary"}
    direct.clean()


def test_a_document_is_its_row_whole(store: Store) -> None:
    store.store(frame(_id=["a"], old=[1]), mode="upsert", key=["_id"])
    assert_counts(store.store(frame(_id=["a"], new=[1])), replaced=1)
    assert store.documents() == {"a": {"_id": "a", "new": 1}}


@pytest.mark.services
def test_a_second_store_of_the_same_rows_leaves_the_same_bytes(real_mongo: str) -> None:
    """MongoDB orders what an update inserts by name; the stand-in leaves it as it was given."""
    store = Store(real_mongo)
    rows = frame(_id=["a"], zeta=[1], Upper=["x"], mid=[2.5])
    store.store(rows, mode="upsert", key=["_id"], created_at="created_at")
    before = bson.encode(store.documents()["a"])
    store.store(rows)
    assert bson.encode(store.documents()["a"]) == before


def test_rows_without_a_key_are_known_by_their_content(store: Store) -> None:
    rows = frame(sku=["x", "x", "y"], n=[1, 1, None])
    assert_counts(store.store(rows), inserted=3)
    ids = store.documents().keys()
    assert_counts(store.store(rows[["n", "sku"]]), replaced=3)  # the fields in another order
    assert store.documents().keys() == ids
    metadata = store.store(frame(n=[1.0, 2.0], sku=["x", "y"]))
    assert_counts(metadata, unchanged=1, inserted=1, deleted=2)
    assert sorted(store.load().to_dict("split")["data"]) == [[1, "x"], [2, "y"]]


def test_a_key_of_several_columns_makes_the_id(store: Store) -> None:
    day = pd.Timestamp("2026-11-23T10:00-03:00")
    rows = frame(
        ticker=["PETR4", "a|b", "a"],
        at=pd.to_datetime([day, day, day + pd.Timedelta("1ms")]),
        lot=[1, 2, 3],
        note=["", "", ""],
    )
    store.store(rows, mode="upsert", key=["ticker", "at", "lot"])
    assert store.documents().keys() == {
        "PETR4|2026-11-23T13:00:00Z|1",
        "a\\|b|2026-11-23T13:00:00Z|2",
        "a|2026-11-23T13:00:00.001Z|3",
    }
    assert_counts(store.store(rows), unchanged=3)
    assert list(store.load().columns) == list(rows.columns)


def test_the_moment_of_creation_is_set_once(store: Store) -> None:
    settings = {"mode": "upsert", "key": ["_id"], "created_at": "created_at"}
    started = datetime.now(UTC).replace(tzinfo=None) - timedelta(milliseconds=1)
    store.store(frame(_id=["a"], n=[1]), **settings)
    first = store.documents()["a"]["created_at"]
    assert started <= first <= datetime.now(UTC).replace(tzinfo=None)
    metadata = store.store(frame(_id=["a", "b"], n=[2, 2]))
    assert_counts(metadata, replaced=1, inserted=1)
    documents = store.documents()
    assert documents["a"]["created_at"] == first
    assert documents["b"]["created_at"] > first


def test_batches_cover_every_row_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagster_mongo.store._BATCH", 4)
    rows = frame(_id=[f"{i:03}" for i in range(25)], n=range(25))
    assert_counts(store.store(rows, key=["_id"]), inserted=25)
    assert_counts(store.store(rows.iloc[:7].assign(n=-1)), replaced=7, deleted=18)
    assert len(store.documents()) == 7


def test_rows_come_back_in_their_order(store: Store) -> None:
    rows = frame(_id=["c", "a", "b"], n=[1, 2, 3])
    for stored, unchanged in [
        (rows, 0),
        (rows.iloc[1:], 2),  # what is left is in its order
        (rows.iloc[[1, 2, 0]], 2),  # and what follows
        (rows.iloc[[0, 2, 1]], 0),
        (rows, 1),
    ]:
        assert store.store(stored, key=["_id"])["unchanged"] == unchanged
        assert store.load().to_dict("list") == stored.to_dict("list")
    assert store.load(columns=["n"])["n"].tolist() == [1, 2, 3]


def test_what_is_the_same_is_not_written(store: Store) -> None:
    settings = {"mode": "upsert", "key": ["_id"], "run_id": "run", "created_at": "made"}
    rows = frame(_id=["a", "b"], n=[1, 2])
    store.store(rows, **settings)
    before = store.documents()
    assert_counts(store.store(rows), unchanged=2)
    assert store.documents() == before
    store.store(rows.assign(n=[1, 3]))
    after = store.documents()
    assert after["a"] == before["a"]
    assert after["b"]["run"] != before["b"]["run"]
    assert after["b"]["made"] == before["b"]["made"]


@pytest.mark.parametrize(
    ("rows", "key", "message"),
    [
        (frame(_id=["a", "b", "a"]), ["_id"], r"Several rows have the same key \['_id'\]: 'a'"),
        (frame(a=list("112233445566")), ["a"], "'5' and 1 more"),
        (frame(a=["x", None], b=[1, 2]), ["a", "b"], "Key column 'a' holds None"),
        (frame(a=[{"x": 1}]), ["a"], "Key column 'a' holds"),
        (frame(a=[1]), ["b"], "no key column 'b'"),
        (frame(_id=[1], a=[1]), ["a"], "The rows have an _id"),
        (frame(_id=[1], made=[1]), ["_id"], "'made' is set by the store"),
    ],
    ids=["twice", "many twice", "null", "dict", "absent", "_id", "managed"],
)
def test_a_key_that_does_not_identify_is_refused(
    store: Store, rows: pd.DataFrame, key: list[str], message: str
) -> None:
    with pytest.raises(MongoFrameError, match=message):
        store.store(rows, mode="upsert", key=key, created_at="made")
    assert store.documents() == {}


def test_indexes_are_made_if_missing(store: Store) -> None:
    unique = {"keys": [("n", 1)], "unique": True, "name": "one_of_each"}
    rows = frame(_id=["a"], n=[1], at=pd.to_datetime(["2026-01-01"]))
    for _ in range(2):
        store.store(rows, key=["_id"], indexes=[[("n", 1), ("at", -1)], [["at", -1]], unique])
    with store.collection() as collection:
        indexed = [list(index["key"]) for index in collection.list_indexes()]
    assert sorted(indexed) == [["_id"], ["at"], ["n"], ["n", "at"]]


def test_readers_see_each_document_old_or_new(store: Store) -> None:
    ids = [f"{i:04}" for i in range(1000)]
    store.store(frame(_id=ids, n=1, same=1), key=["_id"])
    done = threading.Event()
    torn: list[Any] = []
    looks = 0

    def read() -> None:
        nonlocal looks
        with store.collection() as collection:
            while not done.is_set():
                documents = list(collection.find({"_id": {"$in": ids[::10]}}))
                looks += 1
                torn.extend(d for d in documents if d["n"] != d["same"])
                if len(documents) != 100:
                    torn.append(len(documents))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for n in (2, 3, 4):
            store.store(frame(_id=ids, n=n, same=n))
    finally:
        done.set()
        reader.join()
    assert looks > 1
    assert torn == []
