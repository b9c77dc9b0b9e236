"""What the supervisor says of runs."""

from __future__ import annotations

from typing import Any

import pytest

from market_data_pipeline_dev.report import SENSOR, lines

ADDRESS = "http://127.0.0.1:3000"
KEY = "2026-11-19T17:30-0300"
OF_A_WINDOW = {"dagster/partition": KEY}
AT_STARTUP = {**OF_A_WINDOW, "dagster/sensor_name": SENSOR}
RANGE = {f"dagster/asset_partition_range_{end}": KEY for end in ("start", "end")}
SEE_WHY = f"See why at {ADDRESS}/runs/a-long-id"


def told(
    *runs: dict[str, Any], skip_reason: str = "", sensor: str = SENSOR, started: bool = False
) -> list[tuple[str, str]]:
    ticks = [{"skipReason": skip_reason}] if skip_reason else []
    sensors = [{"name": sensor, "sensorState": {"ticks": ticks}}]
    data = {
        "runsOrError": {"results": [*runs]},
        "repositoriesOrError": {"nodes": [{"sensors": sensors}]},
    }
    return [*lines(ADDRESS, data, started)]


def run(status: str, tags: dict[str, str], *counts: int) -> dict[str, Any]:
    materializations = [
        {
            "assetKey": {"path": ["kafka_publication"]},
            "metadataEntries": [{"label": "topic"}, {"label": "published", "intValue": count}],
        }
        for count in counts
    ]
    return {
        "runId": "a-long-id",
        "status": status,
        "startTime": 100.0,
        "endTime": 128.04,
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
        "assetMaterializations": materializations,
    }


@pytest.mark.parametrize(
    ("ended", "line"),
    [
        (
            run("SUCCESS", AT_STARTUP, 50),
            f"Startup run finished: 1 asset materialized for {KEY} (kafka_publication: 50).\n"
            f"  See it at {ADDRESS}/runs/a-long-id, and the events with `make tail`.",
        ),
        (run("CANCELED", AT_STARTUP), f"Startup run was canceled. {SEE_WHY}"),
        (
            run("SUCCESS", OF_A_WINDOW, 50),
            f"Window {KEY}: kafka_publication: 50 (28.0 s)",
        ),
        (run("FAILURE", OF_A_WINDOW), f"Window {KEY} has failed. {SEE_WHY}"),
        (
            run("SUCCESS", RANGE, 0, 50),
            f"Windows {KEY} to {KEY}: kafka_publication: 50 in 1 of 2 windows (28.0 s)",
        ),
        (run("SUCCESS", {}), "Run a-long-i: nothing new (28.0 s)"),
    ],
)
def test_each_run_that_has_ended_is_a_line(ended: dict[str, Any], line: str) -> None:
    assert told(ended) == [("a-long-id", line)]


def test_a_startup_run_that_is_not_needed_is_a_line_and_no_other_tick_is() -> None:
    line = f"Startup run skipped: It is there already. See {ADDRESS}"
    assert told(skip_reason="It is there already.") == [(SENSOR, line)]
    assert told(run("STARTED", AT_STARTUP), skip_reason="It was launched.") == []
    assert told(skip_reason="Not yet.", sensor="watch_freshness") == []


def test_what_is_launched_after_the_startup_run_is_none() -> None:
    ((_, line),) = told(run("SUCCESS", AT_STARTUP, 50), started=True)
    assert line.startswith(f"Window {KEY}: ")
