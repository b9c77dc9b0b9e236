"""A document's version only grows, whoever writes it and in whichever order."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.collection import Collection

from dagster_mongo import (
    MongoDocumentsIOManager,
    MongoFrameError,
    MongoPandasIOManager,
    MongoPolarsIOManager,
)

from .direct import Direct

METADATA = {
    "mongo/mode": "upsert",
    "mongo/key": ["_id"],
    "mongo/version": "rank",
    "mongo/created_at": "made",
}
KINDS: dict[str, tuple[Any, Any]] = {
    "documents": (MongoDocumentsIOManager, list),
    "pandas": (MongoPandasIOManager, pd.DataFrame),
    "polars": (MongoPolarsIOManager, pl.DataFrame),
}
AT = datetime(2026, 11, 23, tzinfo=UTC)
VERSIONS = {
    "number": [1, 2, 3],
    "float": [0.5, 1.5, 2.5],
    "text": ["1|a", "1|b", "1|bb"],
    "date": [AT, AT + timedelta(milliseconds=1), AT + timedelta(days=1)],
}


@pytest.fixture
def asset(uri: str) -> Any:
    direct = Direct(uri, MongoDocumentsIOManager, METADATA)
    yield direct
    direct.clean()


def there(direct: Direct) -> dict[str, Any]:
    return {document["_id"]: document for document in direct.collection().find()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", VERSIONS)
def test_a_lower_version_is_refused_and_counted(uri: str, kind: str, of: str) -> None:
    manager, value = KINDS[kind]
    low, middle, high = VERSIONS[of]
    direct = Direct(uri, manager, METADATA)
    rows = [{"_id": "a", "rank": middle, "n": 1}, {"_id": "b", "rank": middle, "n": 1}]
    assert direct.store(value(rows))["superseded"] == 0
    made = there(direct)["a"]["made"]
    rows = [{"_id": "a", "rank": low, "n": 2}, {"_id": "b", "rank": high, "n": 2}]
    rows.append({"_id": "c", "rank": low, "n": 2})
    metadata = direct.store(value(rows))
    counts = {n: metadata[n] for n in ("inserted", "replaced", "unchanged", "superseded")}
    assert counts == {"inserted": 1, "replaced": 1, "unchanged": 0, "superseded": 1}
    assert {id: document["n"] for id, document in there(direct).items()} == {"a": 1, "b": 2, "c": 2}
    assert there(direct)["a"]["made"] == there(direct)["b"]["made"] == made
    assert direct.store(value(rows))["unchanged"] == 2
    direct.clean()


def test_the_same_version_may_be_corrected(asset: Direct) -> None:
    asset.store([{"_id": "a", "rank": 1, "n": 1}])
    assert asset.store([{"_id": "a", "rank": 1, "n": 2}])["replaced"] == 1
    assert there(asset)["a"]["n"] == 2


@pytest.mark.parametrize("before", [{}, {"rank": None}, {"rank": "of another kind"}], ids=str)
def test_a_document_without_a_version_is_replaced(asset: Direct, before: dict[str, Any]) -> None:
    asset.collection().insert_one({"_id": "a", **before, "made": AT})
    assert asset.store([{"_id": "a", "rank": 1}])["replaced"] == 1
    assert there(asset)["a"]["rank"] == 1
    assert there(asset)["a"]["made"] == AT.replace(tzinfo=None)


@pytest.mark.parametrize("version", [None, True, float("nan"), [1], {"a": 1}], ids=str)
def test_what_is_no_version_is_refused(asset: Direct, version: Any) -> None:
    with pytest.raises(MongoFrameError, match=r"Row 1 has the version .* in field 'rank'"):
        asset.store([{"_id": "a", "rank": 1}, {"_id": "b", "rank": version}])
    assert there(asset) == {}


@pytest.mark.parametrize("theirs", [5, 1], ids=["higher", "lower"])
@pytest.mark.parametrize("before", [None, 0], ids=["inserted", "replaced"])
def test_the_server_refuses_what_was_raised_after_it_was_read(
    asset: Direct, monkeypatch: pytest.MonkeyPatch, before: int | None, theirs: int
) -> None:
    if before is not None:
        asset.store([{"_id": "a", "rank": before}, {"_id": "b", "rank": before}])
    bulk_write, waiting = Collection.bulk_write, [{"_id": "a", "rank": theirs, "n": "theirs"}]

    def late(collection: Any, writes: Sequence[Any], **options: Any) -> Any:
        while waiting:
            document = waiting.pop()
            collection.replace_one({"_id": document["_id"]}, document, upsert=True)
        return bulk_write(collection, writes, **options)

    monkeypatch.setattr(Collection, "bulk_write", late)
    metadata = asset.store([{"_id": "a", "rank": 3, "n": "ours"}, {"_id": "b", "rank": 3}])
    assert there(asset)["a"]["n"] == ("theirs" if theirs > 3 else "ours")
    assert there(asset)["b"]["rank"] == 3
    assert metadata["superseded"] == (theirs > 3)


WRITES = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9), min_size=1), min_size=1, max_size=6
)


@settings(
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "6")) * 3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(writers=st.tuples(WRITES, WRITES))
def test_two_writers_at_once_leave_the_highest_version_of_each(
    uri: str, writers: tuple[list[dict[str, int]], list[dict[str, int]]]
) -> None:
    direct = Direct(uri, MongoDocumentsIOManager, METADATA, name=f"versions_{os.getpid()}")

    def write(stores: list[dict[str, int]]) -> list[int]:
        return [
            direct.store([{"_id": id, "rank": rank} for id, rank in ranks.items()])["superseded"]
            for ranks in stores
        ]

    try:
        with ThreadPoolExecutor(2) as executor:
            superseded = [sum(counts) for counts in executor.map(write, writers)]
        every = [(id, rank) for stores in writers for ranks in stores for id, rank in ranks.items()]
        highest = {id: max(rank for other, rank in every if other == id) for id, _ in every}
        assert {id: document["rank"] for id, document in there(direct).items()} == highest
        for counted, stores in zip(superseded, writers, strict=True):
            assert counted >= sum(map(lower_than_before, range(len(stores)), [stores] * 99))
    finally:
        direct.empty()


def lower_than_before(number: int, stores: list[dict[str, int]]) -> int:
    """How many documents of a store have a lower version than an earlier store of the writer."""
    return sum(
        any(before.get(id, -1) > rank for before in stores[:number])
        for id, rank in stores[number].items()
    )
