"""The token is nowhere: not in the instance's files, its events, its logs, nor in the output."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.brapi import client
from market_data_pipeline_tests.brapi.table import FAULTS, TICKERS, TIMED_OUT, rows
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline, SetWatchlist

SECRET = "S3cret-of/the+tests=="
FORMS = [SECRET, SECRET.replace("/", r"\/"), "S3cret-of%2Fthe%2Btests%3D%3D"]
ENDS_THE_RUN = [case for case, row in rows().items() if row.costs == "the run" and case in FAULTS]
COSTS_A_TICKER = [
    case
    for case, row in rows().items()
    if row.costs == "one ticker" and case in FAULTS and case not in TIMED_OUT
]
# As many instruments as there are ways to fail.
INSTRUMENTS = [
    f"{issuer}{kind}" for issuer in ("PETR", "BBDC", "ITSA", "GGBR", "CMIG") for kind in "34"
]
INSTRUMENTS += ["ABEV3", "B3SA3", "BBAS3", "BPAC11", "CSNA3", "EGIE3", "EQTL3", "KLBN11", "LREN3"]
INSTRUMENTS += ["PRIO3", "RADL3", "RAIL3", "RDOR3", "RENT3", "SBSP3", "SUZB3", "TAEE11", "TIMS3"]


@pytest.fixture
def pipeline(
    make_pipeline: Callable[..., Any],
    instance_in_files: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Pipeline]:
    monkeypatch.setattr(client, "MAX_ATTEMPTS", 1)
    with make_pipeline(token=SECRET) as pipeline:
        pipeline.instance = instance_in_files
        pipeline.brapi = {"token": SECRET}
        yield pipeline


def repeating_the_token(fault: dict[str, Any]) -> dict[str, Any]:
    """The same fault, with the token in what Brapi says."""
    said = " ".join(FORMS[:1] + FORMS[2:])
    if "status" in fault and "body" not in fault:
        message = {"error": True, "message": said, "code": fault.get("code", said)}
        return {**fault, "body": message}
    if "fields" in fault and "regularMarketTime" not in fault["fields"]:
        return {**fault, "fields": {"regularMarketPrice": said, "longName": said}}
    if isinstance(fault.get("body"), str):
        return {**fault, "body": fault["body"] + said}
    return fault


def assert_nowhere(instance: dg.DagsterInstance, folder: Path, output: str) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"history", "logs"} <= {
        path.relative_to(folder / "home").parts[0]
        for path in files
        if path.is_relative_to(folder / "home")
    }
    contents = {str(path): path.read_bytes() for path in files} | {"output": output.encode()}
    events = [event for run in instance.get_runs() for event in instance.all_logs(run.run_id)]
    assert events
    contents["events"] = repr(events).encode()
    for place, content in contents.items():
        for form in FORMS:
            assert form.encode() not in content, place


def test_after_a_run_that_lost_tickers_in_every_way(
    pipeline: Pipeline,
    watchlist: SetWatchlist,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    watchlist(INSTRUMENTS)
    assert len(INSTRUMENTS) > len(COSTS_A_TICKER) > 10
    pipeline.sandbox.faults = [
        Fault(ticker=instrument, **repeating_the_token(FAULTS[case]))
        for instrument, case in zip(INSTRUMENTS, COSTS_A_TICKER, strict=False)
    ]

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert result.success
    assert_nowhere(pipeline.instance, tmp_path, "".join(capfd.readouterr()))


def test_after_runs_that_ended_in_every_way(
    pipeline: Pipeline,
    watchlist: SetWatchlist,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    watchlist(TICKERS)
    assert len(ENDS_THE_RUN) > 5
    for case in ENDS_THE_RUN:
        pipeline.sandbox.faults = [Fault(**repeating_the_token(FAULTS[case]))]
        assert not pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    pipeline.brapi |= {"base_url": "http://127.0.0.1:9"}
    assert not pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    pipeline.brapi |= {"token": f"{SECRET} with a space"}
    assert not pipeline.run(LIVE_ON_TUESDAY, select="quotes").success

    assert_nowhere(pipeline.instance, tmp_path, "".join(capfd.readouterr()))
