"""A key identifies a row by its values and their types."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from dagster_mongo import MongoFrameError
from dagster_mongo.keys import key_ids

from .direct import Direct

PARTS = st.one_of(
    st.text(st.sampled_from('ab1.|\\"-eTZ:'), max_size=6),
    st.sampled_from(["true", "1", "1.0", "-1", "1e5", "inf", "2026-01-01T00:00:00Z", "a" * 24]),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(
        lambda moment: moment.replace(microsecond=0)
    ),
    st.binary(min_size=12, max_size=12).map(ObjectId),
)


def kind(value: Any) -> tuple[str, Any]:
    return ("number" if type(value) in (int, float) else type(value).__name__, value)


@given(st.tuples(PARTS, PARTS), st.tuples(PARTS, PARTS))
def test_two_keys_are_one_exactly_if_their_parts_are(one: Any, two: Any) -> None:
    (a,) = key_ids([{"x": one[0], "y": one[1]}], ["x", "y"])
    (b,) = key_ids([{"x": two[0], "y": two[1]}], ["x", "y"])
    assert (a == b) is ([kind(part) for part in one] == [kind(part) for part in two])


def test_a_key_of_one_column_is_the_id_with_its_type() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [{"k": value} for value in [1, "1", True, 2.0, 2.5, at]]
    assert key_ids(rows, ["k"]) == [1, "1", True, 2, 2.5, at]
    assert type(key_ids([{"k": 2.0}], ["k"])[0]) is int


def test_true_and_1_are_two_ids_and_1_and_its_float_are_one() -> None:
    assert len(key_ids([{"_id": id} for id in [True, 1, "1", {"a": 1}]], ["_id"])) == 4
    with pytest.raises(MongoFrameError, match="same key"):
        key_ids([{"_id": 1}, {"_id": 1.0}], ["_id"])


def test_a_value_of_numpy_or_pandas_is_the_key_that_it_loads_as() -> None:
    odd = [np.int64(1), np.bool_(True), np.float32(2.0), np.str_("a"), np.datetime64("2026-01-01")]
    plain = [1, True, 2, "a", datetime(2026, 1, 1, tzinfo=UTC)]
    for key in (["k"], ["_id"], ["k", "l"]):
        rows = [[dict.fromkeys(key, value) for value in values] for values in (odd, plain)]
        assert key_ids(rows[0], key) == key_ids(rows[1], key)
    finer = {"k": pd.Timestamp("2026-01-01T00:00:00.000000999"), "l": 1}
    assert key_ids([finer], ["k", "l"]) == ["2026-01-01T00:00:00Z|1"]
    with pytest.raises(MongoFrameError, match="BSON has no timedelta64"):
        key_ids([{"k": np.timedelta64(1, "ns")}], ["k"])


def test_an_integer_column_that_becomes_float_doubles_nothing(uri: str) -> None:
    for keys in (["k"], ["k", "t"]):
        direct = Direct(uri, metadata={"mongo/mode": "upsert", "mongo/key": keys})
        direct.store(pd.DataFrame({"k": [1, 2], "t": "x", "n": 1}))
        direct.store(pd.DataFrame({"k": [1.0, 2.0], "t": "x", "n": 2}))
        assert direct.load()["n"].tolist() == [2, 2]
        direct.clean()


@pytest.mark.services
def test_a_number_and_its_text_are_two_documents(real_mongo: str) -> None:
    """On the stand-in, `_id` 1 and "1" are one document."""
    direct = Direct(real_mongo, metadata={"mongo/mode": "upsert", "mongo/key": ["k"]})
    direct.store(pd.DataFrame({"k": pd.Series([1, "1"], dtype=object)}))
    assert sorted(direct.load()["k"].tolist(), key=str) in ([1, "1"], ["1", 1])
    assert {type(d["_id"]) for d in direct.collection().find()} == {int, str}
    direct.clean()
