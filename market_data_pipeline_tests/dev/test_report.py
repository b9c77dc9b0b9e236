"""What the supervisor shows of Dagster: of the run at startup, of other runs, of its output."""

from __future__ import annotations

from typing import Any

import pytest
from market_data_pipeline.operation.automation import WAITING, at_startup

from market_data_pipeline_dev.report import Filter, ended_lines, startup_line

ADDRESS = "http://127.0.0.1:3000"
MATERIALIZATION = {
    "assetKey": {"path": ["kafka_publication"]},
    "metadataEntries": [{"label": "topic"}, {"label": "published", "intValue": 50}],
}


def answer(
    status: str | None = None,
    skip_reason: str | None = None,
    sensor_name: str = at_startup.name,
    cursor: str | None = "id of the daemon",
    **run: Any,
) -> dict[str, Any]:
    tags = [{"key": "dagster/partition", "value": "2026-11-19T17:30-0300"}]
    runs = [{"runId": "r1", "status": status, "tags": tags, **run}] if status else []
    ticks = [{"skipReason": skip_reason, "cursor": cursor}] if skip_reason else []
    sensor = {"name": sensor_name, "sensorState": {"ticks": ticks}}
    return {
        "startup": {"results": runs},
        "repositoriesOrError": {"nodes": [{"sensors": [sensor]}]},
    }


def test_finished() -> None:
    said = startup_line(ADDRESS, answer("SUCCESS", assetMaterializations=[MATERIALIZATION]))
    assert said is not None
    assert "Startup run finished: 1 assets materialized for 2026-11-19T17:30-0300" in said
    assert "(kafka_publication: 50)" in said
    assert f"{ADDRESS}/runs/r1" in said


@pytest.mark.parametrize(("status", "what"), [("FAILURE", "has failed"), ("CANCELED", "canceled")])
def test_failed(status: str, what: str) -> None:
    said = startup_line(ADDRESS, answer(status))
    assert said is not None
    assert what in said
    assert f"{ADDRESS}/runs/r1" in said


def test_needless() -> None:
    said = startup_line(ADDRESS, answer(skip_reason="It is there already."))
    assert said == f"Startup run skipped: It is there already. See {ADDRESS}"


def test_what_another_sensor_says_is_not_about_the_run_at_startup() -> None:
    said = answer(skip_reason="First check in one minute.", sensor_name="watch_freshness")
    assert startup_line(ADDRESS, said) is None


@pytest.mark.parametrize("cursor", [None, f"id of the daemon {WAITING}"])
def test_a_look_that_decides_nothing_is_not_told(cursor: str | None) -> None:
    assert startup_line(ADDRESS, answer(skip_reason="Not yet.", cursor=cursor)) is None


@pytest.mark.parametrize("status", [None, "QUEUED", "STARTING", "STARTED", "CANCELING"])
def test_not_known_yet(status: str | None) -> None:
    assert startup_line(ADDRESS, answer(status)) is None


def ended(status: str, key: str = "dagster/partition", **run: Any) -> dict[str, Any]:
    tags = [{"key": key, "value": "2026-11-19T17:30-0300"}]
    times = {"startTime": 100.0, "endTime": 128.04}
    all_of_it = {"runId": "r1", "status": status, "tags": tags, "assetMaterializations": []}
    return {"ended": {"results": [all_of_it | times | run]}}


def test_a_window_that_has_ended() -> None:
    data = ended("SUCCESS", assetMaterializations=[MATERIALIZATION])
    line = "Window Thu 19 Nov 17:30: kafka_publication: 50 (28.0 s)"
    assert list(ended_lines(ADDRESS, data, 90, set())) == [("r1", line)]
    assert list(ended_lines(ADDRESS, data, 90, {"r1"})) == []
    assert list(ended_lines(ADDRESS, data, 200, set())) == []


def test_of_a_range_the_windows_that_count_something_are_told() -> None:
    empty = {
        "assetKey": {"path": ["kafka_publication"]},
        "metadataEntries": [{"label": "published", "intValue": 0}],
    }
    each = [MATERIALIZATION, empty, MATERIALIZATION]
    said = startup_line(ADDRESS, answer("SUCCESS", assetMaterializations=each))
    assert said is not None
    assert "(kafka_publication: 100 in 2 of 3 windows)" in said


def test_a_run_that_has_failed() -> None:
    [(_, line)] = ended_lines(ADDRESS, ended("FAILURE"), 90, set())
    assert line == f"Window Thu 19 Nov 17:30 has failed. See why at {ADDRESS}/runs/r1"


def test_a_run_without_a_window() -> None:
    [(_, line)] = ended_lines(ADDRESS, ended("SUCCESS", key="another"), 90, set())
    assert line == "Run r1: nothing new (28.0 s)"


GREEN = b"\x1b[32m2026-11-24 13:35:06 +0000\x1b[0m"
RUN = b"market_data_job - 6e247994-58d7-4f2d-b622-184879861b6a"
OUTPUT = [
    (b"click/core.py:911: SupersessionWarning: Function `dev_command`", False),
    (GREEN + b" - dagster.daemon - \x1b[34mINFO\x1b[0m - Instance is configured with", False),
    (b"2026-11-24 13:35:10 +0000 - dagster - INFO - " + RUN + b" - quotes - 50 succeeded", True),
    (GREEN + b" - dagster.daemon.SensorDaemon - \x1b[34mINFO\x1b[0m - Checking", False),
    (GREEN + b" - dagster - \x1b[34mWARNING\x1b[0m - Found a dagster instance configuration "
     b"value (dagster.yaml) in the current folder, but", False),
    (b"2026-11-24 13:35:10 +0000 - dagster - ERROR - " + RUN + b" - quotes - failed", True),
    (b"dagster._core.errors.DagsterExecutionStepExecutionError", True),
    (GREEN + b" - dagster - \x1b[34mINFO\x1b[0m - Loaded environment variables", False),
    (b"something without a head", False),
    (b"Traceback (most recent call last):", True),
    (b"ValueError", True),
    (GREEN + b" - dagster.daemon - \x1b[33mWARNING\x1b[0m - No heartbeat", True),
]  # fmt: skip


def test_warnings_errors_and_what_a_run_says_are_shown() -> None:
    shown = Filter()
    assert [shown(line) for line, _ in OUTPUT] == [expected for _, expected in OUTPUT]
