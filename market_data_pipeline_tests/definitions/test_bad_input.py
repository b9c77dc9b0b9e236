"""What is missing or wrong is one sentence in the run, and nothing is half written."""

import pytest

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline, SetWatchlist
from market_data_pipeline_tests.observed import checks, failure_of, logs


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
    pipeline.mongo_uri = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=2000"

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert not result.success
    assert "No MongoDB server answered at 127.0.0.1:9" in logs(pipeline, result)
    assert len(pipeline.events()) == 50
    pipeline.mongo_uri = there
    asked = len(pipeline.sandbox.requests)
    assert pipeline.run(LIVE_ON_TUESDAY, select="mongo_price_history").success
    assert len(pipeline.documents()) == 50
    assert len(pipeline.sandbox.requests) == asked


def test_no_broker_leaves_the_history(pipeline: Pipeline) -> None:
    with pipeline.without_kafka():
        result = pipeline.run(LIVE_ON_TUESDAY)

    assert not result.success
    assert "127.0.0.1:1" in logs(pipeline, result)
    passed, description = checks(result)["every_quote_delivered"]
    assert not passed
    assert "is not on the topic" in description
    assert len(pipeline.documents()) == 50
    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success
    assert len(pipeline.events()) == 50


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("2025-11-17T10:00-0300", None),
        ("2026-11-02T10:00-0300", None),
        ("2026-11-17T14:15-0300", None),
        (LIVE_ON_TUESDAY, "2026-11-17T13:00-0300"),
        ("2026-11-14T10:00-0300", "2026-11-15T17:30-0300"),
        ("2026-11-13T17:00-0300", "2026-11-15T17:30-0300"),
    ],
    ids=[
        "before the first",
        "holiday",
        "within a window",
        "reversed",
        "weekend",
        "a weekend at its end",
    ],
)
def test_partitions_that_are_no_windows(pipeline: Pipeline, first: str, last: str | None) -> None:
    """Tags of a launch are not checked by Dagster; before, a shorter window may have started there.

    It would take the window that follows.
    """
    result = pipeline.run(first, last)

    assert f"There is no partition for {first}" in failure_of(result)
    assert pipeline.sandbox.requests == []
    assert not pipeline.folder.exists()


def test_a_run_that_was_launched_without_a_partition_is_one_sentence(pipeline: Pipeline) -> None:
    assert failure_of(pipeline.run("")) == (
        "There is no partition: choose one of the asset's, or a range that starts before its end "
        "and ends with one."
    )


def test_a_range_may_begin_where_no_window_does(pipeline: Pipeline) -> None:
    assert pipeline.run("2026-11-14T10:00-0300", "2026-11-16T10:00-0300", select="quotes").success
    assert [*pipeline.store.folder.iterdir()] == [
        pipeline.store.folder / "2026-11-16T10:00-0300.parquet"
    ]
