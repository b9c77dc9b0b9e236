"""When a run is launched: a minute before the end of every window, and whenever one is missing.

Neither launches a run for a window that is stored or in progress, nor more runs than the quota
lasts for.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import dagster as dg
from dagster import DagsterRunStatus as Status

from market_data_pipeline.brapi.quota import CLOSING_GRACE, last_due, why_paced
from market_data_pipeline.market import clock
from market_data_pipeline.market.windows import (
    EXCHANGE_TIMEZONE,
    LARGEST_CLOCK_SKEW,
    LAUNCH_AHEAD,
    Window,
    close_of,
    in_sao_paulo,
)
from market_data_pipeline.quotes.metadata import OBSERVED_AFTER
from market_data_pipeline.runs.common import QUOTES, WINDOWS, has_windows
from market_data_pipeline.runs.dagster_internals import PARTITION_TAG
from market_data_pipeline.runs.run_history import materializations, runs_of, value_of
from market_data_pipeline.storage.quote_store import QuoteStore

JOB = "market_data_job"
# More than the schedule needs to launch a run. A tick with less time before the end of its window
# launches none, so that `launch_missing` and it never launch the same window.
TIME_TO_LAUNCH = timedelta(seconds=10)
# Seconds from a run that failed to the next one of the same asset and window; then no more.
DELAYS = (30, 60, 120, 240, *[480] * 3, *[3600] * 12)


@dg.schedule(
    job_name=JOB,
    cron_schedule=WINDOWS.launch_cron,
    execution_timezone=EXCHANGE_TIMEZONE.key,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Launches a run a minute before the end of every window of a B3 session. The run "
    "gets ready meanwhile, and asks Brapi at the window's end.",
)
def every_window(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """A run for the window that ends a minute after this tick, or the reason for none."""
    end = context.scheduled_execution_time + LAUNCH_AHEAD
    window = WINDOWS.last_ended(end)
    if window is None or window.end != end:
        return dg.SkipReason(f"No window ends {in_sao_paulo(end)}. {_next_window(end)}")
    if clock.utc_now() > window.end - TIME_TO_LAUNCH:
        return dg.SkipReason(f"Late: `launch_missing` launches {window.key} after its end.")
    if reason := _why_blocked(context.instance, QUOTES, window, 0) or why_paced(
        context.instance, window.end
    ):
        return dg.SkipReason(reason)
    # As a tag: Dagster refuses the key of a window that has not ended.
    # If SYNC_INTERVAL_MINUTES has changed, windows with the same key differ in their length.
    run_key = f"{window.key} to {window.end.astimezone(EXCHANGE_TIMEZONE):%H:%M}"
    return dg.RunRequest(run_key=run_key, tags={PARTITION_TAG: window.key})


@dg.sensor(
    job_name=JOB,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches what is missing of the newest window: all assets if it has no quotes, or "
    "if the closing price is now available; an asset alone if it is older than the quotes. After "
    "a failure it waits longer each time.",
)
def launch_missing(
    context: dg.SensorEvaluationContext, quote_store: dg.ResourceParam[QuoteStore]
) -> dg.SensorResult | dg.SkipReason:
    """The runs that are due now, or why there are none. It keeps no state."""
    instance, now = context.instance, clock.utc_now()
    window = WINDOWS.last_ended(now)
    if window is None:
        return dg.SkipReason(f"No window has ended yet. {_next_window(now)}")
    live = WINDOWS.is_live(window, now)
    if live and not WINDOWS.is_live(window, now + LAUNCH_AHEAD):
        return dg.SkipReason(f"{window.key} is live for less than a minute. {_next_window(now)}")
    stored = materializations(instance, QUOTES, [window])[window]
    since = stored[0].timestamp if stored else 0
    due, reasons = last_due(window, now), list[str]()
    if not stored or (
        live and due > window.end and not _has_close(window, due, stored, quote_store)
    ):
        reason = _why_blocked(instance, QUOTES, window, since) or why_paced(instance, due)
        if reason is None:
            return dg.SensorResult([dg.RunRequest(partition_key=window.key)])
        reasons.append(reason)
    requests = []
    for asset in _downstream(context) if live and stored else ():
        if _is_behind(instance, asset, window, since):
            if reason := _why_blocked(instance, asset, window, since):
                reasons.append(reason)
            else:
                requests.append(dg.RunRequest(partition_key=window.key, asset_selection=[asset]))
    if requests:
        return dg.SensorResult(requests)
    well = f"Nothing is missing of {window.key}."
    over = f"{window.key} is no longer live. {_next_window(now)}"
    return dg.SkipReason(" ".join(reasons) or (well if live else over))


def _has_close(
    window: Window, due: datetime, stored: Sequence[dg.EventLogRecord], store: QuoteStore
) -> bool:
    """Whether a window was observed when the plan had the close, or had it before."""
    minutes = max(value_of(record, OBSERVED_AFTER) or 0 for record in stored)
    if window.end + timedelta(minutes=minutes) >= due - CLOSING_GRACE:
        return True
    rows, close = store.reading().rows_of([window.key]), close_of(window.day)
    return all(quote.updated_at >= close for quote in rows)


def _is_behind(
    instance: dg.DagsterInstance, asset: dg.AssetKey, window: Window, since: float
) -> bool:
    """Whether a sink of a window is older than the quotes (Unix seconds), or its last run failed.

    After that failure, an earlier run with older quotes may have ended.
    """
    records = materializations(instance, asset, [window])[window]
    if (records[0].timestamp if records else 0) < since:
        return True
    wanted = dg.RunsFilter(tags={PARTITION_TAG: window.key}, statuses=[Status.FAILURE])
    failed = instance.get_run_records(wanted, limit=1)
    made_by = instance.get_run_record_by_id(records[0].run_id) if failed else None
    if made_by is None or made_by.storage_id >= failed[0].storage_id:
        return False
    run_id, step = failed[0].dagster_run.run_id, asset.to_python_identifier()
    events = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    return any(event.event_log_entry.step_key == step for event in events)


def _downstream(context: dg.SensorEvaluationContext) -> Sequence[dg.AssetKey]:
    """The assets of the job that are made of the quotes."""
    assert context.repository_def
    graph = context.repository_def.asset_graph
    return sorted(
        key
        for key in graph.get(QUOTES).child_keys & graph.materializable_asset_keys
        if has_windows(context.repository_def, key)
    )


def _why_blocked(
    instance: dg.DagsterInstance, asset: dg.AssetKey, window: Window, since: float
) -> str | None:
    """Why no run is launched for a window of an asset: one is in progress, or has just failed.

    Runs that ended before `since` (Unix seconds), or before the window could be asked for, are
    ignored.
    """
    name = asset.to_user_string()
    since = max(since, (window.end - LAUNCH_AHEAD - LARGEST_CLOCK_SKEW).timestamp())
    records = [each for each in runs_of(instance, window, asset) if _ended(each) > since]
    runs = [record.dagster_run for record in records]
    if under_way := [run for run in runs if not run.is_finished]:
        return f"Run {under_way[0].run_id[:8]} is in progress for {window.key}."
    if runs and runs[0].status is Status.CANCELED:
        return f"Run {runs[0].run_id[:8]} of {window.key} was terminated: materialize {name}."
    failed = [*takewhile(lambda each: each.dagster_run.status is Status.FAILURE, records)]
    if not failed:
        return None
    if len(failed) > len(DELAYS):
        return f"{len(failed)} runs have failed for {window.key}: fix the cause, then materialize."
    left = DELAYS[len(failed) - 1] - (clock.record_now().timestamp() - _ended(failed[0]))
    return f"{name} failed for {window.key}: launched again in {left:.0f} s." if left > 0 else None


def _ended(record: dg.RunRecord) -> float:
    """When a run ended, in Unix seconds; infinity if it has not."""
    if not record.dagster_run.is_finished:
        return float("inf")
    return record.end_time or record.update_timestamp.replace(tzinfo=UTC).timestamp()


def _next_window(now: datetime) -> str:
    return f"Next window ends {in_sao_paulo(WINDOWS.next_ending(now).end)}."
