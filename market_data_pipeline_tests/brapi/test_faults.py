"""What Brapi does wrong, row by row of the table in docs/faults.md, over real sockets."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.brapi import client
from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline_tests.brapi.table import (
    BATCH_FAULTS,
    FAULTS,
    SPENT,
    TESTED_ALONE,
    TICKERS,
    TIMED_OUT,
    VICTIM,
    Row,
    rows,
)
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline, SetWatchlist
from market_data_pipeline_tests.observed import checks, failure_of, logs, metadata
from market_data_pipeline_tests.supervised import free_ports


@pytest.fixture(autouse=True)
def soon(watchlist: SetWatchlist, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tickers, and two attempts, the second one at once."""
    watchlist(TICKERS)
    monkeypatch.setattr(client, "FIRST_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(client, "MAX_ATTEMPTS", 2)


def asked(pipeline: Pipeline, ticker: str) -> list[str]:
    """The requests that a ticker was in."""
    paths = [seen.path.removeprefix("/api/quote/") for seen in pipeline.sandbox.requests]
    return [path for path in paths if ticker in path.split(",")]


def check(row: Row, pipeline: Pipeline, result: dg.ExecuteInProcessResult, victim: str) -> None:
    """Compares a run with its row of the table."""
    requests = asked(pipeline, victim)
    if row.again == "in smaller batches":
        assert len(requests) > 1
        assert requests[-1] == victim
    else:
        assert len(requests) == (2 if row.again == "yes" else 1)
    if row.costs == "the run":
        assert not result.success
        assert_reads(failure_of(result), row.sentence)
        return
    assert result.success
    told = metadata(result, "quotes")
    if row.costs == "nothing":
        assert told["failures"] == 0
        assert told["quotes"] == len(TICKERS)
        return
    assert told["quotes"] == len(TICKERS) - 1
    [failed] = told["failed"]
    assert failed["ticker"] == victim
    assert_reads(failed["reason"], row.sentence)
    assert f"{victim} failed: {failed['reason']}" in logs(pipeline, result)
    assert not checks(result)["all_tickers_quoted"][0]


def assert_reads(said: str, sentence: str) -> None:
    assert fnmatchcase(said, sentence.replace("[", "[[]").replace("?", "[?]").replace("…", "*")), (
        said
    )


def test_every_row_of_the_table_is_tested() -> None:
    assert set(rows()) == {*FAULTS, *BATCH_FAULTS, *TESTED_ALONE}


@pytest.mark.parametrize("case", [*FAULTS, *BATCH_FAULTS])
def test_one_ticker_after_another(
    case: str, make_pipeline: Callable[..., Any], watchlist: SetWatchlist
) -> None:
    fault = {"ticker": VICTIM} | (FAULTS | BATCH_FAULTS)[case]
    victim = fault["ticker"] or VICTIM
    watchlist([*TICKERS[:-1], victim])
    with make_pipeline(plan="pro" if case in BATCH_FAULTS else "free") as pipeline:
        pipeline.brapi = {"timeout_seconds": 1.0} if case in TIMED_OUT else {}
        pipeline.brapi |= {"tickers_per_request": 2} if case in BATCH_FAULTS else {}
        pipeline.sandbox.faults = [Fault(**fault)]

        check(rows()[case], pipeline, pipeline.run(LIVE_ON_TUESDAY, select="quotes"), victim)


def test_one_spoils_the_only_batch(pro: Pipeline) -> None:
    pro.sandbox.faults = [Fault(ticker=VICTIM, **BATCH_FAULTS["one spoils the batch"])]

    result = pro.run(LIVE_ON_TUESDAY, select="quotes")

    check(rows()["one spoils the batch"], pro, result, VICTIM)
    assert len(asked(pro, TICKERS[0])) == client.MAX_ATTEMPTS + 1


def test_one_ticker_spoils_each_of_the_batches(
    make_pipeline: Callable[..., Any], watchlist: SetWatchlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_ATTEMPTS", 4)
    tickers = load_watchlist().tickers
    watchlist([*tickers])
    with make_pipeline(plan="startup") as pipeline:
        pipeline.sandbox.faults = [Fault(ticker=each, status=500) for each in tickers[::10]]

        told = metadata(pipeline.run(LIVE_ON_TUESDAY, select="quotes"), "quotes")

        assert {each["ticker"] for each in told["failed"]} == {*tickers[::10]}


@pytest.mark.parametrize(
    ("requested", "costs"),
    [("abev3", "nothing"), ("ABEV3.SA", "nothing"), (["ABEV3"], "nothing"), ("BBAS3", "itself")],
)
def test_an_odd_requested_symbol_costs_no_other_ticker(
    pro: Pipeline, requested: object, costs: str
) -> None:
    pro.sandbox.faults = [Fault(ticker=VICTIM, fields={"requestedSymbol": requested})]

    told = metadata(pro.run(LIVE_ON_TUESDAY, select="quotes"), "quotes")

    failed = [each["ticker"] for each in told.get("failed", [])]
    assert failed == ([VICTIM] if costs == "itself" else [])


@pytest.mark.parametrize("case", SPENT)
def test_a_spent_quota_ends_the_run(case: str, pipeline: Pipeline) -> None:
    pipeline.sandbox.faults = [Fault(status=SPENT[case], headers={"x-ratelimit-remaining": "0"})]

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    check(rows()[case], pipeline, result, TICKERS[0])
    assert len(pipeline.sandbox.requests) == len({each.path for each in pipeline.sandbox.requests})


def test_too_many_tickers(pipeline: Pipeline) -> None:
    pipeline.brapi = {"plan": "pro"}

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    check(rows()["too many tickers"], pipeline, result, VICTIM)
    assert len(pipeline.sandbox.requests) == 1


def test_a_throttle_that_lasts_is_not_asked_ticker_by_ticker(pro: Pipeline) -> None:
    pro.brapi = {"tickers_per_request": 2}
    slower = Fault(numbers=range(2, 1_000), status=429, headers={"Retry-After": "0"})
    pro.sandbox.faults = [slower]

    pro.run(LIVE_ON_TUESDAY, select="quotes")

    asked = [seen.path for seen in pro.sandbox.requests if "/quote/" in seen.path]
    assert len(asked) == 1 + client.MAX_ATTEMPTS * (len(set(asked)) - 1)
    assert all("," in path for path in asked)


def test_another_symbol(pipeline: Pipeline, watchlist: SetWatchlist) -> None:
    watchlist([*TICKERS[:-1], "ELET3"])
    row = rows()["another symbol"]

    result = pipeline.run(LIVE_ON_TUESDAY)

    check(row, pipeline, result, "ELET3")
    assert checks(result)["watchlist_free_of_renames"] == (False, row.sentence)
    assert [d["requested_ticker"] for d in pipeline.documents({"ticker": "AXIA3"})] == ["ELET3"]
    assert b"AXIA3" in {seen.event.key for seen in pipeline.events()}


def test_the_watchlist_that_ships_has_no_symbol_of_the_past() -> None:
    past = "BRFS3 CCRO3 CIEL3 ELET3 ELET6 EMBR3 ENBR3 JBSS3 MRFG3 NTCO3 RRRP3 SOMA3 TRPL4 VIIA3"

    assert not {*load_watchlist().tickers} & set(past.split())


def test_bars_of_another_length(pro: Pipeline) -> None:
    pro.sandbox.faults = [Fault(interval="60m")]

    result = pro.run("2026-11-16T14:30-0300", select="quotes")

    sentence = rows()["bars of another length"].sentence
    told = metadata(result, "quotes")
    assert (told["contents"], told["quotes"]) == (f"EMPTY: {sentence}", 0)
    assert not checks(result)["all_tickers_quoted"][0]
    assert len(asked(pro, VICTIM)) == 1


def test_nobody_is_there(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FAILURES_OF_A_BREAKDOWN", 3)
    (port,) = free_ports(1)
    pipeline.brapi = {"base_url": f"http://127.0.0.1:{port}"}

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert not result.success
    assert_reads(failure_of(result), rows()["connection refused"].sentence)
