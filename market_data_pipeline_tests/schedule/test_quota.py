"""What a run records of the quota, and what the schedule makes of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from market_data_pipeline.brapi.pacing import Quota
from market_data_pipeline.brapi.quota import last_recorded, record
from market_data_pipeline.definitions import defs
from market_data_pipeline.operation.automation import at_startup
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline
from market_data_pipeline_tests.observed import metadata
from market_data_pipeline_tests.schedule.conftest import report_daemon

DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
# A Tuesday; nine sessions are left in November, this one with its 16 windows included.
QUOTA = Quota(3_000, 15_000, 50, DECEMBER, "billing-cycle")


def usage_requests(pipeline: Pipeline) -> int:
    return sum(seen.path == "/api/v2/user/usage" for seen in pipeline.sandbox.requests)


def recorded(pipeline: Pipeline) -> Quota:
    quota = last_recorded(pipeline.instance, TUESDAY_15_00)
    assert quota is not None
    return quota


def test_a_run_records_what_is_left_and_until_when(pipeline: Pipeline) -> None:
    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert recorded(pipeline) == Quota(14_954, 15_000, 46, DECEMBER, "billing-cycle")
    told = metadata(result, "quotes")
    assert (told["quota_left"], told["quota"]) == (
        14_954,
        "14,954 of 15,000 until 1 Dec",
    )


def test_brapi_is_asked_for_the_usage_window_once(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY, select="quotes")
    pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert usage_requests(pipeline) == 1
    assert recorded(pipeline) == Quota(14_908, 15_000, 46, DECEMBER, "billing-cycle")


def test_a_token_that_moved_to_another_plan_is_asked_about_again(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY, select="quotes")
    pipeline.sandbox.plan, pipeline.sandbox.remaining = "startup", 150_000

    pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert usage_requests(pipeline) == 2
    assert recorded(pipeline) == Quota(149_995, 150_000, 5, DECEMBER, "billing-cycle")


def test_a_token_that_was_replaced_is_asked_about_again(pipeline: Pipeline) -> None:
    """The other token's usage window may end on another day."""
    pipeline.run(LIVE_ON_TUESDAY, select="quotes")
    pipeline.run(LIVE_ON_TUESDAY, select="quotes")
    pipeline.sandbox.remaining = 15_000

    pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert usage_requests(pipeline) == 2


def test_what_others_spend_is_seen(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY, select="quotes")
    pipeline.sandbox.remaining = 5_000

    pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert recorded(pipeline).left == 5_000 - 46


def test_a_run_that_asks_for_history_keeps_what_is_known(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    pipeline.run("2026-11-16T17:30-0300", select="quotes")
    assert recorded(pipeline) == Quota(14_908, 15_000, 46, DECEMBER, "billing-cycle")
    pipeline.run("2026-11-16T10:00-0300", select="quotes")  # no plan has its bar: nothing is asked
    assert recorded(pipeline) == Quota(14_908, 15_000, 46, DECEMBER, "billing-cycle")
    assert usage_requests(pipeline) == 1


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, Quota(14_954, 15_000, 46, DECEMBER, "assumed")),
        (
            {"usageWindow": {"type": "billing-cycle", "end": "2026-11-20T12:00:00.000Z"}},
            Quota(14_954, 15_000, 46, datetime(2026, 11, 20, 12, tzinfo=UTC), "billing-cycle"),
        ),
        (
            {"usageWindow": {"type": "billing-cycle", "end": "2026-11-01T00:00:00.000Z"}},
            Quota(14_954, 15_000, 46, DECEMBER, "assumed"),
        ),
        (
            {"usageWindow": {"type": "rolling-30d", "end": "2026-11-17T18:00:00.000Z"}},
            Quota(14_954, 15_000, 46, TUESDAY_15_00 + timedelta(days=30), "rolling-30d"),
        ),
    ],
)
def test_every_kind_of_usage_window(
    usage: dict[str, Any],
    expected: Quota,
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brapi_sandbox.sandbox._usage", lambda sandbox: {"usage": usage})

    pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert recorded(pipeline) == expected


def stored(instance: dg.DagsterInstance, key: str, quota: Quota) -> None:
    instance.report_runless_asset_event(record(quota))
    instance.report_runless_asset_event(dg.AssetMaterialization("quotes", partition=key))


def test_the_schedule_spreads_what_is_left(tick, instance) -> None:
    """60 runs for nine sessions of 16 windows: about every second window, and the last."""
    quota = QUOTA
    stored(instance, "2026-11-16T17:30-0300", quota)
    ran, skipped = [], []
    for number in range(16):
        end = datetime(2026, 11, 17, 10, 30) + timedelta(minutes=30 * number)
        said = tick(end.isoformat())
        if isinstance(said, dg.RunRequest):
            ran.append(number)
            quota = replace(quota, left=quota.left - quota.cost)
            stored(instance, str(said.partition_key), quota)
        else:
            skipped.append(said)

    assert ran == [2, 5, 7, 10, 13, 15]
    assert skipped[0] == (
        "Paced: 3,000 requests are left until Mon 30 Nov 21:00, 60 runs of 50 for 144 windows. "
        "The next run is at Tue 17 Nov 11:30."
    )


def test_a_new_usage_window_has_all_of_the_quota(tick, instance) -> None:
    stored(instance, "2026-11-30T17:30-0300", replace(QUOTA, left=10))

    said = tick("2026-12-01T10:30")

    assert "15,000 requests are left until Thu 31 Dec 21:00" in str(said)


def test_without_a_record_every_window_runs(tick) -> None:
    assert isinstance(tick("2026-11-17T10:30"), dg.RunRequest)


def test_a_record_without_all_of_its_parts_is_none(tick, instance) -> None:
    event = dg.AssetMaterialization(
        "quotes", partition="2026-11-16T17:30-0300", metadata={"quota_left": 3}
    )
    instance.report_runless_asset_event(event)

    assert isinstance(tick("2026-11-17T10:30"), dg.RunRequest)


def test_the_startup_does_not_undo_the_pacing(instance, set_clock) -> None:
    stored(instance, "2026-11-16T17:30-0300", QUOTA)
    set_clock(datetime(2026, 11, 17, 13, 40, tzinfo=UTC))
    report_daemon(instance)
    context = dg.build_sensor_context(instance=instance, repository_def=defs.get_repository_def())

    data = at_startup.evaluate_tick(context)

    assert not data.run_requests
    assert data.skip_message is not None
    assert "The next run is at Tue 17 Nov 11:30." in data.skip_message
