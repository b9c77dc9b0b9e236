"""What is missing or wrong is one sentence in the run, and nothing is half written."""

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline, SetWatchlist
from market_data_pipeline_tests.observed import checks, failure_of, logs

UNUSED = "127.0.0.1:9"


def test_no_token(pipeline: Pipeline) -> None:
    pipeline.brapi["token"] = ""

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert not result.success
    assert "BRAPI_TOKEN is not set. Put your token into .env" in logs(pipeline, result)
    assert pipeline.sandbox.requests == []
    assert not pipeline.folder.exists()


def test_a_watchlist_without_a_ticker(pipeline: Pipeline, watchlist: SetWatchlist) -> None:
    watchlist(["PETR"])

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert "has no instruments" in failure_of(result)
    assert pipeline.sandbox.requests == []


def test_a_line_of_the_watchlist_that_is_no_ticker(
    pipeline: Pipeline, watchlist: SetWatchlist
) -> None:
    watchlist(["PETR4", "PETR", "VALE3"])
    said = "Left out of the watchlist: line 3: 'PETR' is not a B3 ticker such as PETR4 or HGLG11."

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert result.success
    assert len(pipeline.documents()) == len(pipeline.events()) == 2
    assert said in logs(pipeline, result)
    assert checks(result)["watchlist_free_of_renames"] == (False, said)
    assert checks(result)["all_tickers_quoted"][0]


def test_no_mongodb_leaves_the_quotes_and_the_events(pipeline: Pipeline) -> None:
    there = pipeline.mongo_uri
    pipeline.mongo_uri = f"mongodb://{UNUSED}"

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert not result.success
    assert f"No MongoDB server answered at {UNUSED}" in logs(pipeline, result)
    assert len(pipeline.events()) == 50
    pipeline.mongo_uri = there
    asked = len(pipeline.sandbox.requests)
    assert pipeline.run(LIVE_ON_TUESDAY, select="mongo_price_history").success
    assert len(pipeline.documents()) == 50
    assert len(pipeline.sandbox.requests) == asked


def test_no_broker_leaves_the_history(pipeline: Pipeline) -> None:
    there = pipeline.bootstrap_servers
    pipeline.bootstrap_servers = UNUSED
    pipeline.kafka["timeout_seconds"] = 2

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert not result.success
    assert UNUSED in logs(pipeline, result)
    passed, description = checks(result)["every_quote_delivered"]
    assert not passed
    assert "is not on the topic" in description
    assert len(pipeline.documents()) == 50
    pipeline.bootstrap_servers = there
    pipeline.kafka.clear()
    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success
    assert len(pipeline.events()) == 50
