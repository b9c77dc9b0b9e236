"""What a run records of the quota, and what the schedule makes of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.brapi import connection
from market_data_pipeline.brapi.quota import Kind, Quota, last_recorded, record
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline, at
from market_data_pipeline_tests.observed import checks, metadata
from market_data_pipeline_tests.schedule.conftest import Operation

DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
IN_THIRTY_DAYS = TUESDAY_15_00 + timedelta(days=30)
# A Tuesday; nine sessions are left in November, this one with its 16 windows included.
QUOTA = Quota(3_000, 15_000, 50, DECEMBER, "billing-cycle")


def recorded(pipeline: Pipeline) -> Quota:
    quota = last_recorded(pipeline.instance, TUESDAY_15_00)
    assert quota is not None
    return quota


def test_each_run_records_what_is_left_and_asks_until_when_only_if_that_may_have_changed(
    pipeline: Pipeline,
) -> None:
    def run(window: str = LIVE_ON_TUESDAY) -> tuple[Quota, int]:
        assert pipeline.run(window, select="quotes").success
        asked = [seen.path for seen in pipeline.sandbox.requests]
        return recorded(pipeline), asked.count("/api/v2/user/usage")

    free = Quota(14_954, 15_000, 46, DECEMBER, "billing-cycle")
    assert run() == (free, 1)
    assert run() == (replace(free, left=15_000 - 2 * 46), 1)
    # History, which costs the same, and a window that no plan has a bar of: nothing is asked.
    assert run("2026-11-16T17:30-0300") == (replace(free, left=15_000 - 3 * 46), 1)
    assert run("2026-11-16T10:00-0300") == (replace(free, left=15_000 - 3 * 46), 1)
    # Others spend.
    pipeline.sandbox.remaining = 5_000
    assert run() == (replace(free, left=5_000 - 46), 1)
    # Another token: its usage window may end on another day.
    pipeline.sandbox.remaining = 10_000
    assert run("2026-11-16T17:30-0300") == (replace(free, left=10_000 - 46, kind="assumed"), 1)
    pipeline.sandbox.remaining = 9_000
    assert run() == (replace(free, left=9_000 - 46), 2)
    pipeline.sandbox.remaining = 15_000
    assert run() == (free, 3)
    # Another plan.
    pipeline.sandbox.plan, pipeline.sandbox.remaining = "startup", 150_000
    assert run() == (Quota(149_995, 150_000, 5, DECEMBER, "billing-cycle"), 4)


@pytest.mark.parametrize(
    ("type_", "end", "kind", "until"),
    [
        ("", "", "assumed", DECEMBER),
        ("billing-cycle", "2026-11-20T12:00:00.000Z", "billing-cycle", at("2026-11-20T09:00")),
        ("billing-cycle", "2026-11-01T00:00:00.000Z", "assumed", DECEMBER),
        ("rolling-30d", "2026-11-17T18:00:00.000Z", "rolling-30d", IN_THIRTY_DAYS),
    ],
)
def test_every_kind_of_usage_window(
    type_: str,
    end: str,
    kind: Kind,
    until: datetime,
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = {"usageWindow": {"type": type_, "end": end}} if type_ else {}
    monkeypatch.setattr("brapi_sandbox.sandbox._usage", lambda sandbox: {"usage": usage})

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert recorded(pipeline) == Quota(14_954, 15_000, 46, until, kind)
    told = metadata(result, "quotes")
    assert told["quota_left"] == 14_954
    assert told["quota"] == f"14,954 of 15,000 until {until:%-d %b}"


def without_headers(monkeypatch: pytest.MonkeyPatch, *absent: str) -> None:
    read = connection._rate_limit
    monkeypatch.setattr(
        connection,
        "_rate_limit",
        lambda headers, name: None if name in absent else read(headers, name),
    )


def test_a_rolling_quota_gives_back_what_it_takes_if_no_answer_says(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = {"usageWindow": {"type": "rolling-30d", "end": "2026-11-17T18:00:00.000Z"}}
    monkeypatch.setattr("brapi_sandbox.sandbox._usage", lambda sandbox: {"usage": usage})
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    before = recorded(pipeline)
    without_headers(monkeypatch, "limit", "remaining")

    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    assert recorded(pipeline) == before


def test_a_quota_without_a_limit_is_as_large_as_it_has_been(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_headers(monkeypatch, "limit")
    for pipeline.sandbox.remaining in (15_000, 60, 14_000):
        assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
        assert recorded(pipeline).limit == 14_954
    pipeline.sandbox.remaining = 15_046

    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    assert recorded(pipeline).limit == 15_000


def test_more_left_than_the_limit_is_not_believed(pipeline: Pipeline) -> None:
    pipeline.sandbox.remaining = 150_000

    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    assert last_recorded(pipeline.instance, TUESDAY_15_00) is None


def stored(operation: Operation, key: str, quota: Quota) -> None:
    operation.instance.report_runless_asset_event(record(quota))
    operation.materialize(key, "quotes")


def test_the_schedule_spreads_what_is_left(operation: Operation) -> None:
    """60 runs for nine sessions of 16 windows and a close: every third window, and the close."""
    quota = QUOTA
    stored(operation, "2026-11-16T17:30-0300", quota)
    ran, skipped = [], []
    for number in range(16):
        tick = datetime(2026, 11, 17, 10, 29) + timedelta(minutes=30 * number)
        said = operation.tick(tick.isoformat())
        if isinstance(said, dg.RunRequest):
            ran.append(number)
            quota = replace(quota, left=quota.left - quota.cost)
            stored(operation, said.tags["dagster/partition"], quota)
        else:
            skipped.append(said)

    assert ran == [2, 5, 8, 11, 14]
    assert skipped[0] == (
        "Paced: 3,000 requests are left until Mon 30 Nov 21:00, 60 runs of 50 for 153 "
        "observations. The next one is at Tue 17 Nov 11:30."
    )
    assert "Tue 17 Nov 18:35" in skipped[-1]


def test_a_new_usage_window_has_all_of_the_quota(operation: Operation) -> None:
    stored(operation, "2026-11-30T17:30-0300", replace(QUOTA, left=10))

    said = operation.tick("2026-12-01T10:29")

    assert "15,000 requests are left until Thu 31 Dec 21:00" in str(said)


def test_a_record_without_all_of_its_parts_is_none(operation: Operation) -> None:
    operation.materialize("2026-11-16T17:30-0300", "quotes", quota_left=3)

    assert isinstance(operation.tick("2026-11-17T10:29"), dg.RunRequest)


def test_what_a_failed_run_cost_is_recorded_for_the_pacing(pipeline: Pipeline) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    pipeline.sandbox.faults = [Fault(status=500)]
    assert not pipeline.run(LIVE_ON_TUESDAY, select="quotes").success

    quota = recorded(pipeline)
    assert quota.left < 15_000 - 46
    assert quota.cost == 46


@pytest.mark.parametrize(
    ("quota", "key", "lasts"),
    [
        (QUOTA, LIVE_ON_TUESDAY, False),
        (replace(QUOTA, left=9_000), LIVE_ON_TUESDAY, True),
        (replace(QUOTA, left=500, until=at("2026-11-17T21:00")), LIVE_ON_TUESDAY, True),
        # What is asked now is whether it lasts from now on.
        (replace(QUOTA, left=9_000), "2026-09-01T17:30-0300", True),
        (replace(QUOTA, left=8_000, cost=46, kind="rolling-30d"), LIVE_ON_TUESDAY, True),
    ],
)
def test_a_quota_that_will_not_last_is_said(
    pipeline: Pipeline, quota: Quota, key: str, lasts: bool
) -> None:
    pipeline.instance.report_runless_asset_event(record(quota))
    pipeline.sandbox.remaining = quota.left

    passed, why = checks(pipeline.run(key, select="quotes"))["quota_lasts"]

    assert passed is lasts, why
