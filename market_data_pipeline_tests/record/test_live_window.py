"""The live window: from Brapi's quote endpoint into the collection and onto the topic."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
from brapi_sandbox.faults import Fault

from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline, SetClock
from market_data_pipeline_tests.observed import checks, logs, metadata

TICKERS = [*load_watchlist().tickers]


def test_every_instrument_is_in_the_history_and_on_the_topic(pipeline: Pipeline) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success

    documents = {document["ticker"]: document for document in pipeline.documents()}
    assert sorted(documents) == sorted(TICKERS)
    petr4 = documents["PETR4"]
    assert petr4["_id"] == "PETR4|2026-11-17T17:30:00Z"
    assert petr4["window_start"] == datetime(2026, 11, 17, 17, 30, tzinfo=UTC)
    assert petr4["window_end"] == datetime(2026, 11, 17, 18, 0, tzinfo=UTC)
    assert petr4["source"] == "live"
    events = {seen.event.key.decode(): json.loads(seen.event.value) for seen in pipeline.events()}
    assert events == {
        ticker: {
            "ticker": ticker,
            "name": document["name"],
            "short_name": document["short_name"],
            "price": document["price"],
            "volume": document["volume"],
            "updated_at": int(document["updated_at"].timestamp()),
        }
        for ticker, document in documents.items()
    }


def test_quotes_are_asked_of_the_quote_endpoint_alone_once_each(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY)

    *quotes, usage = pipeline.sandbox.requests
    assert sorted(seen.path for seen in quotes) == sorted(
        f"/api/quote/{ticker}" for ticker in TICKERS
    )
    assert usage.path == "/api/v2/user/usage"
    assert all(seen.query == {} and seen.authorization for seen in pipeline.sandbox.requests)


def test_materializing_again_replaces_and_keeps_the_moment_of_creation(
    pipeline: Pipeline, set_clock: SetClock
) -> None:
    first = pipeline.run(LIVE_ON_TUESDAY)
    before = pipeline.documents()
    set_clock(TUESDAY_15_00 + timedelta(seconds=30))
    second = pipeline.run(LIVE_ON_TUESDAY)

    after = pipeline.documents()
    assert [document["_id"] for document in after] == [document["_id"] for document in before]
    assert {document["run_id"] for document in before} == {first.run_id}
    assert {document["run_id"] for document in after} == {second.run_id}
    assert [document["created_at"] for document in after] == [
        document["created_at"] for document in before
    ]


def test_documents_of_another_code_location_are_not_counted(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    ticker = {"ticker": "ZZZZ3", "requested_ticker": "ZZZZ3"}
    other = {**pipeline.documents()[0], **ticker, "_id": "ZZZZ3|2026-11-17T17:30:00Z"}
    with pymongo.MongoClient[dict[str, Any]](pipeline.mongo_uri) as client:
        client["market_data_db"]["price_history"].insert_one(other)

    result = pipeline.run(LIVE_ON_TUESDAY, select="mongo_price_history")

    assert metadata(result, "mongo_price_history")["rows"] == 50
    assert len(pipeline.documents()) == 51


def test_one_bad_ticker_costs_no_other(pipeline: Pipeline) -> None:
    pipeline.sandbox.faults = [Fault(ticker="VALE3", status=404)]

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert result.success
    assert len(pipeline.documents()) == len(pipeline.events()) == 49
    assert metadata(result, "quotes")["failed"] == [
        {"ticker": "VALE3", "reason": "unknown ticker (404)"}
    ]
    assert "VALE3 failed: unknown ticker (404)" in logs(pipeline, result)
    assert "Ingestion completed: 49 succeeded, 1 failed" in logs(pipeline, result)
    passed, description = checks(result)["all_tickers_quoted"]
    assert not passed
    assert "VALE3" in description


def test_a_run_tells_what_it_asked_and_what_is_left(pipeline: Pipeline) -> None:
    result = pipeline.run(LIVE_ON_TUESDAY)

    told = metadata(result, "quotes")
    assert (told["quotes"], told["failures"], told["requests"]) == (50, 0, 50)
    assert told["quota_left"] == 15_000 - 46  # four instruments are free of it
    history = metadata(result, "mongo_price_history")
    assert history["rows"] == 50
    assert "2026-11-17T17:30:00Z" in history["query"]
    assert metadata(result, "kafka_publication")["published"] == 50
    assert all(passed for passed, _ in checks(result).values())


def test_publishing_again_comes_from_the_stored_quotes(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    asked = len(pipeline.sandbox.requests)

    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success

    assert len(pipeline.sandbox.requests) == asked
    ids = [seen.ce_id for seen in pipeline.events()]
    assert len(ids) == 100
    assert len(set(ids)) == 50


def test_quotes_that_were_never_stored_are_named(pipeline: Pipeline) -> None:
    result = pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication")

    assert not result.success
    assert f"There are no stored quotes for {LIVE_ON_TUESDAY}" in logs(pipeline, result)
