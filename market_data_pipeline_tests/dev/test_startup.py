"""What the supervisor says about the run at startup, from what the webserver answers."""

from __future__ import annotations

from typing import Any

import pytest

from market_data_pipeline.automation import WAITING, at_startup
from market_data_pipeline_dev.startup import report

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
        "runsOrError": {"results": runs},
        "repositoriesOrError": {"nodes": [{"sensors": [sensor]}]},
    }


def test_finished() -> None:
    said = report(ADDRESS, answer("SUCCESS", assetMaterializations=[MATERIALIZATION]))
    assert said is not None
    assert "is finished: 1 assets materialized for 2026-11-19T17:30-0300" in said
    assert "(kafka_publication: 50)" in said
    assert f"{ADDRESS}/runs/r1" in said


@pytest.mark.parametrize(("status", "what"), [("FAILURE", "has failed"), ("CANCELED", "canceled")])
def test_failed(status: str, what: str) -> None:
    said = report(ADDRESS, answer(status))
    assert said is not None
    assert what in said
    assert f"{ADDRESS}/runs/r1" in said


def test_needless() -> None:
    said = report(ADDRESS, answer(skip_reason="It is there already."))
    assert said == f"No run at startup: It is there already. See {ADDRESS}"


def test_what_another_sensor_says_is_not_about_the_run_at_startup() -> None:
    said = answer(skip_reason="The first look is in a minute.", sensor_name="watch_freshness")
    assert report(ADDRESS, said) is None


@pytest.mark.parametrize("cursor", [None, f"id of the daemon {WAITING}"])
def test_a_look_that_decides_nothing_is_not_told(cursor: str | None) -> None:
    assert report(ADDRESS, answer(skip_reason="Not yet.", cursor=cursor)) is None


@pytest.mark.parametrize("status", [None, "QUEUED", "STARTING", "STARTED", "CANCELING"])
def test_not_known_yet(status: str | None) -> None:
    assert report(ADDRESS, answer(status)) is None
