"""Lists of dicts: documents as they are."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import dagster as dg
import pytest
from bson import Decimal128, ObjectId
from bson.datetime_ms import DatetimeMS

from dagster_mongo import (
    MongoDocumentsIOManager,
    MongoFrameError,
    MongoOperationError,
    MongoPandasIOManager,
)

from .conftest import Store, values
from .direct import Direct

HOURS = dg.TimeWindowPartitionsDefinition(
    start=datetime(2026, 11, 13, tzinfo=UTC), fmt="%Y-%m-%dT%H:%M", cron_schedule="0 * * * *"
)
KEYS = ("2026-11-13T10:00", "2026-11-13T11:00", "2026-11-13T12:00")
AT = datetime(2026, 11, 13, 10, 30, tzinfo=UTC)


@pytest.fixture
def history(uri: str) -> Any:
    direct = Direct(uri, MongoDocumentsIOManager, {"mongo/mode": "upsert", "mongo/key": ["_id"]})
    yield direct
    direct.clean()


def test_documents_come_back_as_they_are(history: Direct) -> None:
    documents: list[dict[str, Any]] = [
        {"_id": "a", "z": 1, "a": "é", "at": AT, "list": [1, {"at": AT}, None], "none": None},
        {"_id": "b", "f": 1.5, "flag": True, "bytes": b"\0", "sub": {"y": 1, "x": 2}},
    ]
    metadata = history.store(documents)
    assert (metadata["inserted"], metadata["rows"]) == (2, 2)
    loaded = sorted(history.load(), key=lambda document: str(document["_id"]))
    assert loaded == documents
    assert [list(document) for document in loaded] == [list(document) for document in documents]
    assert loaded[0]["at"].tzinfo is not None


@pytest.mark.parametrize(
    "id",
    [date(2026, 11, 13), timedelta(1), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=3))), {1}],
    ids=str,
)
def test_what_bson_has_not_is_no_id(history: Direct, id: Any) -> None:
    with pytest.raises(MongoFrameError, match=r"cannot be an _id|no date in UTC"):
        history.store([{"_id": id}])
    assert history.load() == []


@pytest.mark.services
def test_types_that_the_stand_in_lacks(real_mongo: str) -> None:
    direct = Direct(real_mongo, MongoDocumentsIOManager, {"mongo/key": ["_id"]})
    documents = [
        {"_id": ObjectId(), "d": Decimal("1.50"), "u": UUID(int=7), "inf": float("inf")},
        {"_id": {"a": 1, "b": "x"}, "x": 1},
        {"_id": 1, "x": 1},
        {"_id": "1", "x": 1},
        {"_id": UUID(int=8), "x": 1},
        {"_id": {"u": UUID(int=8)}, "x": 1},
        {"_id": Decimal("2.5"), "x": 1},
        {"_id": float("nan"), "x": 1},
    ]
    direct.store(documents)
    assert direct.store(documents)["unchanged"] == len(documents)
    with pytest.raises(MongoFrameError, match="Several rows have the same key"):
        direct.store([{"_id": 1}, {"_id": Decimal(1)}])
    assert sorted(map(repr, direct.load())) == sorted(map(repr, documents))
    direct.clean()


def test_a_time_in_another_zone_is_the_same_moment(history: Direct) -> None:
    zoned = AT.astimezone(timezone(timedelta(hours=-3)))
    history.store([{"_id": "a", "at": zoned, "naive": AT.replace(tzinfo=None)}])
    assert history.load() == [{"_id": "a", "at": AT, "naive": AT}]


def test_the_store_sets_its_fields_and_keeps_the_moment_of_creation(history: Direct) -> None:
    history.metadata |= {"mongo/created_at": "created_at", "mongo/run_id": "run_id"}
    history.store([{"_id": "a", "n": 1, "gone": 1}, {"_id": "same"}], run_id="first")
    first, same = sorted(history.load(), key=lambda document: str(document["_id"]))
    documents = [{"_id": "a", "n": 2}, {"_id": "b", "n": 1}, {"_id": "same"}]
    history.store(documents, run_id="second")
    a, b, same_again = sorted(history.load(), key=lambda document: str(document["_id"]))
    assert a == {"_id": "a", "n": 2, "run_id": "second", "created_at": first["created_at"]}
    assert b["created_at"] > first["created_at"]
    assert same_again == same
    with pytest.raises(MongoFrameError, match="Field 'created_at' is set by the store"):
        history.store([a])


def test_without_a_key_documents_are_known_by_their_content(uri: str) -> None:
    direct = Direct(uri, MongoDocumentsIOManager)
    direct.metadata = {"mongo/mode": "replace"}
    direct.store([{"n": 1, "s": "x"}, {"n": 1, "s": "x"}, {"n": 2}])
    metadata = direct.store([{"s": "x", "n": 1}, {"n": 3}])
    assert (metadata["inserted"], metadata["deleted"]) == (1, 2)
    loaded = direct.load()
    assert sorted(document["n"] for document in loaded) == [1, 3]
    assert {type(document["_id"]) for document in loaded} == {ObjectId}
    direct.clean()


@pytest.mark.services
def test_a_list_is_stored_and_loaded_as_it_is(real_mongo: str) -> None:
    """Without any setting; the stand-in has no decimals, and takes 1 and "1" for one."""
    direct = Direct(real_mongo, MongoDocumentsIOManager)
    rows = [
        {"_id": 1, "price": Decimal("35.50"), "deep": [{"d": Decimal("-0.001")}]},
        {"_id": "1", "nan": float("-inf"), "big": 2**40},
    ]
    direct.store(rows)
    raw = {document["_id"]: document for document in direct.collection().find()}
    assert raw[1] == {"_id": 1, "price": Decimal128("35.50"), "deep": [{"d": Decimal128("-0.001")}]}
    assert direct.load() == rows
    direct.clean()


@pytest.mark.services
def test_a_date_that_python_has_not_is_an_error(real_mongo: str) -> None:
    """Of another writer: the stand-in has no such dates."""
    for kind in (MongoDocumentsIOManager, MongoPandasIOManager):
        direct = Direct(real_mongo, kind)
        direct.collection().insert_one({"at": DatetimeMS(2**48)})
        with pytest.raises(MongoOperationError, match=r"cannot be read: .*out of range"):
            direct.load()
        direct.clean()


def run(store: Store, documents: object, keys: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The metadata of each partition of a run for a range."""
    materializations = store.run(documents, keys)
    return {m.partition or "": values(m.metadata) for m in materializations}


@pytest.fixture
def hours(store: Store) -> Store:
    store.kind = MongoDocumentsIOManager
    store.partitions = HOURS
    store.metadata = {"partition_expr": "at", "mongo/mode": "upsert", "mongo/key": ["_id"]}
    return store


def test_a_range_tells_each_partition_its_own_count(hours: Store) -> None:
    documents = [{"_id": n, "at": AT} for n in "ab"]
    documents.append({"_id": "c", "at": AT + timedelta(hours=2)})
    told = run(hours, documents, KEYS)
    assert [told[key]["dagster/partition_row_count"] for key in KEYS] == [2, 0, 1]
    assert [told[key]["rows"] for key in KEYS] == [2, 0, 1]
    assert {told[key]["run/rows"] for key in KEYS} == {3}
    assert {told[key]["run/inserted"] for key in KEYS} == {3}
    assert "inserted" not in told[KEYS[0]]
    assert [len(hours.load(key)) for key in KEYS] == [2, 0, 1]
    assert len(hours.load(*KEYS[:2])) == 2


def test_a_range_may_be_empty(hours: Store) -> None:
    run(hours, [{"_id": "a", "at": AT}], KEYS)
    told = run(hours, [], KEYS)
    assert [told[key]["dagster/partition_row_count"] for key in KEYS] == [0, 0, 0]
    assert len(hours.load(*KEYS)) == 1


def test_a_range_that_is_empty_now_is_emptied(hours: Store) -> None:
    hours.metadata["mongo/mode"] = "replace"
    run(hours, [{"_id": "a", "at": AT}], KEYS)
    assert run(hours, [], KEYS)[KEYS[0]]["run/deleted"] == 1


def test_a_single_partition_and_an_empty_list(hours: Store) -> None:
    metadata = values(hours.run([], [KEYS[0]])[0].metadata)
    assert (metadata["rows"], metadata["dagster/partition_row_count"]) == (0, 0)
    with pytest.raises(MongoFrameError, match="belongs to none of the partitions"):
        hours.run([{"_id": "a", "at": AT}], [KEYS[1]])
    with pytest.raises(MongoFrameError, match="no partition column 'at'"):
        hours.run([{"_id": "a"}], [KEYS[1]])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": 1}, "A list of dicts can be stored, not a dict"),
        ([{"_id": 1}, 2], "item 1 is a int"),
        ([{"_id": 1, "$a": 1}], r"field '\$a'"),
        ([{"_id": 1, 5: 1}], "field 5"),
        ([{"_id": 1, "a": Decimal(10**40 + 1)}], "Row 0 .* field 'a': a decimal of 41 digits"),
        ([{"_id": 1, "a": [Decimal("1E+7000")]}], "Row 0 cannot be stored: field 'a': a decimal"),
        ([{"_id": 1, "a": date(2026, 1, 1)}], "Row 0 cannot be stored: field 'a': BSON has no da"),
        ([{"_id": 1}, {"a": 1}], "Row 1 has no _id, and others have one"),
        ([{"_id": 1}, {"_id": 1}], "Several rows have the same key"),
        ([{"a": 1}], "no key column '_id'"),
    ],
    ids=str,
)
def test_what_cannot_be_stored_is_refused(history: Direct, value: Any, message: str) -> None:
    with pytest.raises(MongoFrameError, match=message):
        history.store(value)
    assert history.load() == []
