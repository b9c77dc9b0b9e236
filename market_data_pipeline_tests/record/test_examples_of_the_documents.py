"""What docs/reading.md and docs/contracts.md show for reading the record does what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pymongo
import pytest
from pymongo.collection import Collection

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline, SetWatchlist
from market_data_pipeline_tests.observed import failure_of
from market_data_pipeline_tests.services.mongo_engine import mongo_engine
from market_data_pipeline_tests.supervised import ROOT

SESSIONS = ("2026-11-13", "2026-11-16")
CLOSES = [f"{day}T17:30-0300" for day in SESSIONS]

# What a script has as `updated_at`.
ISO, SECONDS = "2026-11-13T20:30:00.000Z", 1794601800


def blocks(document: str, language: str) -> str:
    """The examples of a document in a language, one after the other."""
    text = (ROOT / "docs" / document).read_text("utf-8")
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))


@pytest.fixture
def recorded(pipeline: Pipeline, watchlist: SetWatchlist) -> Pipeline:
    """Two past sessions and a live window of PETR4 and BBAS3."""
    watchlist(("PETR4", "BBAS3"))
    assert pipeline.run(CLOSES[0], CLOSES[1]).success
    assert pipeline.run(LIVE_ON_TUESDAY).success
    return pipeline


def run_the_examples_of_reading(pipeline: Pipeline) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the examples for MongoDB, and the one for the Parquet files, leave behind."""
    text = blocks("reading.md", "python")
    places = {
        "mongodb://127.0.0.1:27117": pipeline.mongo_uri,
        ".dev/brapi/dagster/storage/quotes": str(pipeline.store.folder),
    }
    for place, here in places.items():
        assert text.count(place) == 1
        text = text.replace(place, here)
    of_mongo, of_parquet = text.rsplit("import pandas", 1)
    found: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    exec(of_mongo, found[0])
    exec(f"import pandas{of_parquet}", found[1])
    return found


def test_the_frames_hold_the_history_of_petr4_and_the_closes_no_withheld_price(
    recorded: Pipeline,
) -> None:
    documents = recorded.documents({"ticker": "PETR4"})
    with pymongo.MongoClient[dict[str, Any]](recorded.mongo_uri) as client:
        prices = client["market_data_db"]["price_history"]
        prices.update_one({"_id": documents[-1]["_id"]}, {"$set": {"decision": "withheld"}})

    mongo, parquet = run_the_examples_of_reading(recorded)

    starts = [each["window_start"] for each in documents]
    assert starts == sorted(starts)
    for frame in (mongo["petr4"], parquet["petr4"]):
        assert list(frame["window_start"]) == starts
        assert list(frame["price"]) == [each["price"] for each in documents]
        assert set(frame["ticker"]) == {"PETR4"}
    assert {each["source"] for each in documents} == {"daily", "live"}
    by_start = {each["window_start"]: each["price"] for each in documents}
    closes = [by_start[datetime.strptime(each, "%Y-%m-%dT%H:%M%z")] for each in CLOSES]
    expected = dict(zip(SESSIONS, closes, strict=True))
    assert dict(zip(mongo["daily"]["_id"], mongo["daily"]["close"], strict=True)) == expected
    assert dict(mongo["closes"]) == expected


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.services)])
def beside_a_script(
    request: pytest.FixtureRequest, pipeline: Pipeline
) -> Iterator[Collection[dict[str, Any]]]:
    """The collection that the pipeline is going to write to, on each of the engines."""
    with ExitStack() as stack:
        if request.param == "real":
            pipeline.mongo_uri = stack.enter_context(mongo_engine())
        client = stack.enter_context(pymongo.MongoClient[dict[str, Any]](pipeline.mongo_uri))
        client.drop_database("market_data_db")
        yield client["market_data_db"]["price_history"]
        client.drop_database("market_data_db")


@pytest.mark.parametrize("forms", [[ISO], [SECONDS], [ISO, SECONDS]], ids=len)
def test_the_documents_of_a_script_are_left_out(
    beside_a_script: Collection[dict[str, Any]],
    pipeline: Pipeline,
    watchlist: SetWatchlist,
    forms: list[str | int],
) -> None:
    of_script = {"ticker": "PETR4", "name": None, "short_name": None, "price": 1.0, "volume": 1}
    beside_a_script.insert_many([{**of_script, "updated_at": each} for each in forms])
    beside_a_script.create_index([("updated_at", -1)], name="by_time")
    watchlist(("PETR4", "BBAS3"))
    assert pipeline.run(*CLOSES).success

    mongo, _ = run_the_examples_of_reading(pipeline)
    assert len(mongo["petr4"]) == len(SESSIONS)
    assert list(mongo["daily"]["_id"]) == list(mongo["closes"].index) == list(SESSIONS)
    assert list(mongo["daily"]["close"]) == list(mongo["closes"]) == list(mongo["petr4"]["price"])


@pytest.mark.services
@pytest.mark.parametrize("beside_a_script", ["real"], indirect=True)
@pytest.mark.parametrize("keys", [["ticker"], ["ticker", "source"], ["short_name"]])
def test_a_unique_index_of_a_script_is_named_until_it_is_dropped(
    beside_a_script: Collection[dict[str, Any]],
    pipeline: Pipeline,
    watchlist: SetWatchlist,
    keys: list[str],
) -> None:
    watchlist(("PETR4",))
    beside_a_script.create_index(keys, unique=True)
    run = pipeline.run(*CLOSES)
    assert not run.success
    said = failure_of(run, "mongo_price_history")
    (named,) = re.findall(r"Its unique index '(.*)' allows no two .*: drop the index", said)
    beside_a_script.drop_index(named)
    assert pipeline.run(*CLOSES, select="mongo_price_history").success


def test_the_queries_of_the_contract(recorded: Pipeline) -> None:
    """In MongoDB's shell a key has no quotes; the rest is Python too."""
    shell = re.sub(r"([{,] *)(\w+):", r'\1"\2":', blocks("contracts.md", "js"))
    last_session, one_window = (line.split("//")[0] for line in shell.strip().splitlines())
    one_window = one_window.replace("2026-11-23T13:00:00Z", "2026-11-16T20:30:00Z")
    with pymongo.MongoClient[dict[str, Any]](recorded.mongo_uri, tz_aware=True) as client:
        names = {"db": client["market_data_db"], "ISODate": datetime.fromisoformat}
        newest_first = [each["_id"] for each in eval(last_session, dict(names))]
        in_the_window = {each["ticker"] for each in eval(one_window, dict(names))}

    assert newest_first == [each["_id"] for each in recorded.documents({"ticker": "PETR4"})][::-1]
    assert in_the_window == {"PETR4", "BBAS3"}
