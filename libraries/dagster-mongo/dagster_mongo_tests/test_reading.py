"""What an input loads of an asset: columns and query."""

from typing import Any

import pandas as pd
import polars as pl
import pytest

from dagster_mongo import (
    MongoDocumentsIOManager,
    MongoLoadError,
    MongoPandasIOManager,
    MongoPolarsIOManager,
    MongoSettingsError,
)

from .direct import Direct

ROWS = [
    {"_id": "a", "n": 3, "s": "x"},
    {"_id": "b", "n": 1, "s": "y"},
    {"_id": "c", "n": 2, "s": "x"},
]
KINDS: dict[str, tuple[Any, Any, Any]] = {  # manager, to its type, to rows
    "pandas": (MongoPandasIOManager, pd.DataFrame, lambda frame: frame.to_dict("records")),
    "polars": (MongoPolarsIOManager, pl.DataFrame, lambda frame: frame.to_dicts()),
    "documents": (MongoDocumentsIOManager, list, list),
}


@pytest.fixture(params=list(KINDS))
def asset(request: pytest.FixtureRequest, uri: str) -> Any:
    kind, of, rows = KINDS[request.param]
    direct = Direct(uri, kind, {"mongo/key": ["_id"], "mongo/run_id": "run"})
    direct.store(of(ROWS))

    def load(**reading: Any) -> list[dict[str, Any]]:
        loaded = direct.load(**{f"mongo/{name}": value for name, value in reading.items()})
        return [{k: v for k, v in row.items() if k != "run"} for row in rows(loaded)]

    load.direct = direct  # type: ignore[attr-defined]
    yield load
    direct.clean()


def test_a_query(asset: Any) -> None:
    assert sorted(row["_id"] for row in asset(query={"s": "x"})) == ["a", "c"]
    assert asset(query={"n": {"$gt": 5}}) == []


def test_columns_and_what_no_document_has(uri: str) -> None:
    direct = Direct(uri, metadata={"mongo/key": ["_id"]})
    direct.store(pd.DataFrame(ROWS))
    assert list(direct.load(columns=["s", "n"]).columns) == ["s", "n"]
    with pytest.raises(MongoLoadError, match="No document has a field 'prize'"):
        direct.load(columns=["prize"])
    direct.clean()


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ({"mongo/filter": {}}, "Unknown metadata mongo/filter. Known are mongo/columns, mongo/q"),
        ({"mongo/query": "n"}, "mongo/query cannot be 'n'"),
        ({"columns": "n"}, "mongo/columns cannot be 'n'"),
        ({"columns": []}, "mongo/columns cannot be"),
        ({"columns": ["n", 5]}, "mongo/columns cannot be"),
    ],
    ids=str,
)
def test_metadata_that_makes_no_sense(reading: dict[str, Any], message: str) -> None:
    with pytest.raises(MongoSettingsError, match=message):
        Direct("mongodb://127.0.0.1:1").load(**reading)
