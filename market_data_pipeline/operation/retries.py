"""Retries what failed of the live window, for as long as it is live.

A run whose process was killed counts as failed; Dagster's own retries launch it again. A sink that
failed is launched alone: its quotes are stored, so no request to Brapi is needed. A run that ended
because Brapi was down is launched once more.
"""

from __future__ import annotations

import dagster as dg

from market_data_pipeline.market import clock
from market_data_pipeline.market.windows import Window, trading_windows
from market_data_pipeline.operation.automation import market_data_job
from market_data_pipeline.runs.asset_keys import HISTORY, PUBLICATION, QUOTES
from market_data_pipeline.runs.dagster_internals import fail_run
from market_data_pipeline.runs.one_at_a_time import is_dead
from market_data_pipeline.runs.run_history import (
    NOT_RECORDED_TAG,
    OUTAGE_TAG,
    UNFINISHED,
    materialized,
    runs_of,
)

WINDOWS = trading_windows()
RETRY_TAG = "market_data/retry"
# Seconds.
AFTER_AN_OUTAGE = 300
FIRST_DELAY, LONGEST_DELAY = 30, 480


@dg.sensor(
    job=market_data_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="While a window is live: relaunches a failed sink on its own, with growing delays, "
    "and the whole window once, five minutes after Brapi was down.",
)
def retry_live_window(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """The runs that are due now, or why there are none."""
    instance = context.instance
    window = WINDOWS.live(clock.utc_now())
    if window is None:
        return dg.SkipReason("No window is live.")
    for asset in (QUOTES, HISTORY, PUBLICATION):
        for record in runs_of(instance, window, asset, dg.RunsFilter(statuses=UNFINISHED)):
            run = record.dagster_run
            if is_dead(run):
                # Dagster's monitoring of runs would notice only when the run has taken too long.
                fail_run(instance, run, "The process of this run has ended.")
            elif asset == QUOTES:
                return dg.SkipReason(f"Run {run.run_id[:8]} is in progress for {window.key}.")
    if not materialized(instance, QUOTES, [window]):
        return _after_an_outage(instance, window)
    requests = [
        request
        for sink in (HISTORY, PUBLICATION)
        if (request := _sink_alone(instance, window, sink))
    ]
    if not requests:
        return dg.SkipReason(f"Nothing has to be retried for {window.key} now.")
    return dg.SensorResult(run_requests=requests)


def _after_an_outage(
    instance: dg.DagsterInstance, window: Window
) -> dg.SensorResult | dg.SkipReason:
    runs = runs_of(instance, window, QUOTES)
    if not runs or OUTAGE_TAG not in runs[0].dagster_run.tags:
        return dg.SkipReason(
            f"{window.key} has no quotes, but its last run did not end in an outage of Brapi."
        )
    if any(RETRY_TAG in record.dagster_run.tags for record in runs):
        return dg.SkipReason(f"{window.key} was already retried after an outage of Brapi.")
    left = AFTER_AN_OUTAGE - _since(runs[0])
    if left > 0:
        return dg.SkipReason(f"Brapi was down: {window.key} is retried in {left:.0f} s.")
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
    instance: dg.DagsterInstance, window: Window, sink: dg.AssetKey
) -> dg.RunRequest | None:
    """A run of a sink that has failed, if it is due."""
    runs = runs_of(instance, window, sink)
    if sink == HISTORY:
        runs = _with_lost_acceptances(instance, window, runs)
    if not runs or runs[0].dagster_run.status is not dg.DagsterRunStatus.FAILURE:
        return None
    # An earlier run may have stored or published what there was then.
    if materialized(instance, sink, [window], since=runs[0].create_timestamp):
        return None
    name = sink.to_user_string()
    attempts = sum(record.dagster_run.tags.get(RETRY_TAG) == name for record in runs)
    if _since(runs[0]) < min(FIRST_DELAY * 2**attempts, LONGEST_DELAY):
        return None
    return dg.RunRequest(
        run_key=f"{window.key} {name} after {runs[0].dagster_run.run_id}",
        partition_key=window.key,
        asset_selection=[sink],
        tags={RETRY_TAG: name},
    )


def _with_lost_acceptances(
    instance: dg.DagsterInstance, window: Window, runs: list[dg.RunRecord]
) -> list[dg.RunRecord]:
    """The runs that failed to write to the collection, of either sink, and others; newest first."""
    wanted = dg.RunsFilter(tags={NOT_RECORDED_TAG: "true"})
    lost = runs_of(instance, window, PUBLICATION, wanted)
    by_id = {record.dagster_run.run_id: record for record in [*runs, *lost]}
    return sorted(by_id.values(), key=lambda record: record.create_timestamp, reverse=True)


def _since(record: dg.RunRecord) -> float:
    """The seconds since a run has ended, by the clock of Dagster's records."""
    return clock.record_now().timestamp() - record.end_time if record.end_time else 0.0
