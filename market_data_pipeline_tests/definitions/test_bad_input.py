"""What is missing or wrong is one sentence in the run, and nothing is half written."""

import pytest

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline, SetWatchlist
from market_data_pipeline_tests.observed import checks, failure_of, logs


@pytest.mark.parametrize(
    ("token", "tickers", "sentence"),
    [
        ("", ["PETR4"], "BRAPI_TOKEN is not set. Put your token into .env"),
        ("token", ["PETR"], "has no instruments"),
    ],
)
def test_what_cannot_be_asked_for(
    pipeline: Pipeline, watchlist: SetWatchlist, token: str, tickers: list[str], sentence: str
) -> None:
    pipeline.brapi["token"] = token
    watchlist(tickers)

    assert sentence in failure_of(pipeline.run(LIVE_ON_TUESDAY))
    assert pipeline.sandbox.requests == []
    assert not pipeline.folder.exists()


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


def test_a_sink_that_is_away_costs_the_other_nothing_and_is_filled_without_a_request(
    pipeline: Pipeline, four_instruments: tuple[str, ...]
) -> None:
    there = pipeline.mongo_uri
    pipeline.mongo_uri = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=500"
    result = pipeline.run(LIVE_ON_TUESDAY)
    assert not result.success
    assert "No MongoDB server answered at 127.0.0.1:9" in logs(pipeline, result)
    assert len(pipeline.events()) == 4

    asked, pipeline.mongo_uri = len(pipeline.sandbox.requests), there
    with pipeline.without_kafka():
        result = pipeline.run(LIVE_ON_TUESDAY, select='not key:"quotes"')
    assert not result.success
    assert "127.0.0.1:1" in logs(pipeline, result)
    passed, description = checks(result)["every_quote_delivered"]
    assert not passed
    assert "was not published" in description
    assert len(pipeline.documents()) == 4

    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success
    assert len(pipeline.events()) == 8
    assert len(pipeline.sandbox.requests) == asked


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("2025-11-17T10:00-0300", None),
        ("2026-11-02T10:00-0300", None),
        ("2026-11-17T14:15-0300", None),
        (LIVE_ON_TUESDAY, "2026-11-17T13:00-0300"),
        ("2026-11-14T10:00-0300", "2026-11-15T17:30-0300"),
        ("2026-11-13T17:00-0300", "2026-11-15T17:30-0300"),
        ("", None),
    ],
    ids=[
        "before the first",
        "holiday",
        "within a window",
        "reversed",
        "weekend",
        "a weekend at its end",
        "none",
    ],
)
def test_partitions_that_are_no_windows(pipeline: Pipeline, first: str, last: str | None) -> None:
    """Tags of a launch are not checked by Dagster; before, a shorter window may have started there.

    It would take the window that follows.
    """
    named = f" for {first}" if first else ": choose one of the asset's"

    assert f"There is no partition{named}" in failure_of(pipeline.run(first, last))
    assert pipeline.sandbox.requests == []
    assert not pipeline.folder.exists()


def test_a_range_may_begin_where_no_window_does(pipeline: Pipeline) -> None:
    assert pipeline.run("2026-11-14T10:00-0300", "2026-11-16T10:00-0300", select="quotes").success
    assert [path.name for path in pipeline.store.folder.iterdir()] == [
        "2026-11-16T10:00-0300.parquet"
    ]
