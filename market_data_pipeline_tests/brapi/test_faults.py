"""What Brapi does wrong, row by row of the table in docs/faults.md, over real sockets."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.brapi import client
from market_data_pipeline.watchlist import load_watchlist
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline
from market_data_pipeline_tests.observed import checks, logs, metadata
from market_data_pipeline_tests.supervised import ROOT

TABLE = ROOT / "docs" / "faults.md"
# The last one is the one that has the fault.
TICKERS = ["BBAS3", "WEGE3", "TIMS3", "ABEV3"]
VICTIM = TICKERS[-1]
PAGE = "<html><body>Not here.</body></html>"
ISSUE = {"code": "invalid_string", "path": ["tickers"], "message": "tickers deve ter letras."}


@dataclass(frozen=True)
class Row:
    """What the table promises."""

    case: str
    again: str
    costs: str
    sentence: str


def rows() -> dict[str, Row]:
    """The table, by case."""
    lines = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {case: Row(case, again, costs, says) for case, _, again, costs, says in cells}


def quote_with(**fields: Any) -> dict[str, Any]:
    return {"fields": {f"regularMarket{name}": value for name, value in fields.items()}}


FAULTS: dict[str, dict[str, Any]] = {
    "unknown": {"status": 404},
    "unknown, older answer": {"status": 417},
    "404 with a page": {"status": 404, "body": PAGE},
    "redirect": {"status": 301, "body": PAGE, "headers": {"Location": "https://example.com/"}},
    "refused parameter": {"status": 400},
    "malformed parameter": {
        "status": 400,
        "body": {"success": False, "error": {"issues": [ISSUE], "name": "ZodError"}},
    },
    "too many tickers, one asked": {"status": 400, "code": "QUOTES_PER_REQUEST_EXCEEDED"},
    "interval not on the plan": {"status": 400, "code": "INVALID_INTERVAL"},
    "range not on the plan": {"status": 400, "code": "INVALID_RANGE"},
    "no token": {"status": 401, "code": "MISSING_TOKEN"},
    "wrong token": {"status": 401, "code": "INVALID_TOKEN"},
    "payment required": {"status": 402},
    "not on the plan": {"status": 403, "code": "FEATURE_NOT_AVAILABLE"},
    "quota spent": {"status": 429, "headers": {"x-ratelimit-remaining": "0"}},
    "too fast, once": {"status": 429, "headers": {"Retry-After": "0"}, "numbers": [1]},
    "too fast, always": {"status": 429},
    "come back later": {"status": 429, "headers": {"Retry-After": "3600"}, "delay": 1.0},
    "server error, once": {"status": 500, "numbers": [1]},
    "server error": {"status": 500},
    "server error with a page": {"status": 503, "body": PAGE},
    "no answer": {"delay": 30},
    "slow drip": {"drip": 0.1},
    "cut body": {"cut": True},
    "reset": {"reset": True},
    "broken JSON": {"body": '{"results": [{"symbol": "ABEV3", "regularMark'},
    "a page for an answer": {"body": PAGE},
    "JSON of another shape": {"body": {"results": {}}},
    "no result": {"body": {"results": []}},
    "null price": quote_with(Price=None),
    "negative price": quote_with(Price=-1),
    "zero price": quote_with(Price=0),
    "textual price": quote_with(Price="35.50"),
    "absurd price": quote_with(Price=1e12),
    "no market time": {"without": ["regularMarketTime"]},
    "epoch": quote_with(Time=0),
    "time in seconds": quote_with(Time=1_794_938_000),
    "volume as a float": quote_with(Volume=1200.0),
}
BATCH_FAULTS: dict[str, dict[str, Any]] = {
    "fewer results": {"drop": True},
    "other order": {"ticker": None, "reverse": True},
    "one spoils the batch": {"status": 500},
    "refused batch": {"status": 404},
}
TESTED_ALONE = {"not an instrument of B3", "too many tickers", "renamed", "nobody is there"}
# Long enough for an answer on a busy machine; the others have the usual ten seconds.
TIMED_OUT = {"no answer", "slow drip"}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts, the second one at once."""
    monkeypatch.setattr(client, "FIRST_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(client, "MAX_ATTEMPTS", 2)


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Sets the watchlist."""

    def watch(tickers: list[str]) -> None:
        path = tmp_path / "watchlist.csv"
        path.write_text("\n".join(["ticker", *tickers]))
        monkeypatch.setenv("WATCHLIST_FILE", str(path))

    watch(TICKERS)
    return watch


def failure(result: dg.ExecuteInProcessResult) -> str:
    """The sentence that a failed run of `quotes` ends with."""
    data = result.failure_data_for_node("quotes")
    assert data is not None
    assert data.user_failure_data is not None, data.error
    return str(data.user_failure_data.description)


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
        assert_reads(failure(result), row.sentence)
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


@pytest.mark.usefixtures("watch")
@pytest.mark.parametrize("case", FAULTS)
def test_one_ticker_after_another(case: str, pipeline: Pipeline) -> None:
    pipeline.sandbox.faults = [Fault(ticker=VICTIM, **FAULTS[case])]
    if case in TIMED_OUT:
        pipeline.brapi = {"request_timeout_seconds": 1.0}

    check(rows()[case], pipeline, pipeline.run(LIVE_ON_TUESDAY, select="quotes"), VICTIM)


@pytest.mark.usefixtures("watch")
@pytest.mark.parametrize("case", BATCH_FAULTS)
def test_batches(case: str, make_pipeline: Callable[..., Any]) -> None:
    with make_pipeline(plan="pro") as pipeline:
        pipeline.brapi = {"tickers_per_request": 2}
        pipeline.sandbox.faults = [Fault(**({"ticker": VICTIM} | BATCH_FAULTS[case]))]

        check(rows()[case], pipeline, pipeline.run(LIVE_ON_TUESDAY, select="quotes"), VICTIM)


def test_not_an_instrument_of_b3(pipeline: Pipeline, watch: Callable[[list[str]], None]) -> None:
    watch([*TICKERS[:-1], "ZZZZ3"])

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    check(rows()["not an instrument of B3"], pipeline, result, "ZZZZ3")


@pytest.mark.usefixtures("watch")
def test_too_many_tickers(pipeline: Pipeline) -> None:
    pipeline.brapi = {"plan": "pro"}

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    check(rows()["too many tickers"], pipeline, result, VICTIM)
    assert len(asked(pipeline, VICTIM)) == 2  # what was refused is not sent again


def test_a_renamed_instrument(pipeline: Pipeline, watch: Callable[[list[str]], None]) -> None:
    watch([*TICKERS[:-1], "ELET3"])
    row = rows()["renamed"]

    result = pipeline.run(LIVE_ON_TUESDAY)

    check(row, pipeline, result, "ELET3")
    assert checks(result)["watchlist_free_of_renames"] == (False, row.sentence)
    assert [d["requested_ticker"] for d in pipeline.documents({"ticker": "AXIA3"})] == ["ELET3"]
    assert b"AXIA3" in {seen.event.key for seen in pipeline.events()}


def test_the_watchlist_that_ships_has_no_symbol_of_the_past() -> None:
    past = "BRFS3 CCRO3 CIEL3 ELET3 ELET6 EMBR3 ENBR3 JBSS3 MRFG3 NTCO3 RRRP3 SOMA3 TRPL4 VIIA3"

    assert not {instrument.ticker for instrument in load_watchlist()} & set(past.split())


@pytest.mark.usefixtures("watch")
def test_nobody_is_there(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FAILURES_OF_A_BREAKDOWN", 6)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pipeline.brapi = {"base_url": f"http://127.0.0.1:{port}"}

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert not result.success
    assert_reads(failure(result), rows()["nobody is there"].sentence)
