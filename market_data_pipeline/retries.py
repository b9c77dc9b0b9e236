"""Retries what failed of the live window, for as long as it is live.

A sink that failed is launched alone: its quotes are stored, so no request to Brapi is needed. A run
that ended because Brapi was down is launched once more.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg

from market_data_pipeline import clock
from market_data_pipeline.asset_keys import HISTORY, PUBLICATION, QUOTES
from market_data_pipeline.automation import market_data_job
from market_data_pipeline.run_history import OUTAGE_TAG, UNFINISHED, materialized, runs_of
from market_data_pipeline.windows import Window, trading_windows

WINDOWS = trading_windows()
RETRY_TAG = "market_data/retry"
AFTER_AN_OUTAGE = timedelta(minutes=5)
FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=30), timedelta(minutes=8)


@dg.sensor(
    job=market_data_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="While a window is live: launches a sink alone that has failed, with growing "
    "delays, and the whole window once more some minutes after Brapi was down.",
)
def retry_live_window(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """The runs that are due now, or why there are none."""
    now, instance = clock.utc_now(), context.instance
    window = WINDOWS.live(now)
    if window is None:
        return dg.SkipReason("No window is live.")
    if under_way := runs_of(instance, window, QUOTES, dg.RunsFilter(statuses=UNFINISHED)):
        run_id = under_way[0].dagster_run.run_id
        return dg.SkipReason(f"Run {run_id[:8]} is on its way for {window.key}.")
    if not materialized(instance, QUOTES, [window]):
        return _after_an_outage(instance, window, now)
    requests = [
        request
        for sink in (HISTORY, PUBLICATION)
        if (request := _sink_alone(instance, window, sink, now))
    ]
    if not requests:
        return dg.SkipReason(f"Nothing of {window.key} has to be retried now.")
    return dg.SensorResult(run_requests=requests)


def _after_an_outage(
    instance: dg.DagsterInstance, window: Window, now: datetime
) -> dg.SensorResult | dg.SkipReason:
    runs = runs_of(instance, window, QUOTES)
    if not runs or OUTAGE_TAG not in runs[0].dagster_run.tags:
        return dg.SkipReason(f"{window.key} has no quotes, and no outage of Brapi ended its run.")
    if any(RETRY_TAG in record.dagster_run.tags for record in runs):
        return dg.SkipReason(f"{window.key} was retried once after an outage of Brapi.")
    due = _end_of(runs[0], now) + AFTER_AN_OUTAGE
    if now < due:
        return dg.SkipReason(f"Brapi was down: {window.key} is retried in {_seconds(due - now)} s.")
    return dg.SensorResult(
        [
            dg.RunRequest(
                run_key=f"{window.key} retry after an outage",
                partition_key=window.key,
                tags={RETRY_TAG: QUOTES.to_user_string()},
            )
        ]
    )


def _sink_alone(
    instance: dg.DagsterInstance, window: Window, sink: dg.AssetKey, now: datetime
) -> dg.RunRequest | None:
    """A run of a sink that has failed, if it is due."""
    runs = runs_of(instance, window, sink)
    if not runs or runs[0].dagster_run.status is not dg.DagsterRunStatus.FAILURE:
        return None
    if materialized(instance, sink, [window]):
        return None
    name = sink.to_user_string()
    attempts = sum(record.dagster_run.tags.get(RETRY_TAG) == name for record in runs)
    delay = min(FIRST_DELAY * 2**attempts, LONGEST_DELAY)
    if now < _end_of(runs[0], now) + delay:
        return None
    return dg.RunRequest(
        run_key=f"{window.key} {name} retry {attempts + 1}",
        partition_key=window.key,
        asset_selection=[sink],
        tags={RETRY_TAG: name},
    )


def _end_of(record: dg.RunRecord, now: datetime) -> datetime:
    return datetime.fromtimestamp(record.end_time, UTC) if record.end_time else now


def _seconds(span: timedelta) -> int:
    return round(span.total_seconds())
