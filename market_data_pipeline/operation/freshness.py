"""Whether the last window that was due is materialized, on each of the three assets.

Dagster's freshness policies know only a cron and the time of the last materialization. They would
call an asset late on a holiday or after a skipped window, and fresh after a backfill of last March.
This check looks at the window instead. Its page also accounts for each window of the last sessions:
see `missing.py`.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg

from market_data_pipeline.brapi.resource import BrapiResource
from market_data_pipeline.market import clock
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window, trading_windows
from market_data_pipeline.operation.automation import FRESHNESS_CHECKS, why_not_yet
from market_data_pipeline.operation.missing import account
from market_data_pipeline.runs.asset_keys import QUOTES
from market_data_pipeline.runs.checks import as_evaluation
from market_data_pipeline.runs.dagster_internals import last_materializations
from market_data_pipeline.runs.run_history import UNFINISHED, materialized, runs_of

WINDOWS = trading_windows()
# A run takes half a minute; in the worst case, five.
GRACE = timedelta(minutes=10)
WAITING = "waiting"
FRESH = [
    dg.AssetCheckSpec(
        key.name,
        asset=key.asset_key,
        description="The last window due is materialized ten minutes after its end at the latest; "
        "nothing is due at night, on weekends or on holidays. If not: look at the last run and at "
        "the ticks of the schedule `every_window`, then materialize the window. The table lists "
        "the windows of the last five sessions that are missing or empty, and what fills them.",
    )
    for key in FRESHNESS_CHECKS
]


@dg.multi_asset_check(name="freshness", specs=FRESH, can_subset=True)
def freshness(
    context: dg.AssetCheckExecutionContext, brapi: BrapiResource
) -> Iterator[dg.AssetCheckResult]:
    """Says of each asset whether it is fresh now."""
    now = clock.utc_now()
    for key in context.selected_asset_check_keys:
        yield _result(context.instance, key.asset_key, now, brapi)


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports whether the three assets are fresh, ten minutes after the end of each "
    "window and after each materialization. It launches no run.",
)
def watch_freshness(
    context: dg.SensorEvaluationContext, brapi: BrapiResource
) -> dg.SensorResult | dg.SkipReason:
    """The evaluations of `fresh`, whenever a window is due or an asset was materialized.

    After each materialization of an asset, Dagster shows its check as not evaluated until it is
    evaluated again. The cursor is what the last tick saw.
    """
    now = clock.utc_now()
    window = _due(now)
    if window is None:
        return dg.SkipReason("No window is due yet.")
    if not _is_there(context.instance, QUOTES, now) and (
        reason := why_not_yet(context.instance, window)
    ):
        return dg.SkipReason(f"{window.key} was not due. {reason}")
    if wait := _why_wait(context.instance, window, context.cursor):
        return dg.SensorResult(skip_reason=wait, cursor=WAITING)
    keys = [spec.asset_key for spec in FRESH]
    seen = json.dumps([window.key, *last_materializations(context.instance, keys)])
    if context.cursor == seen:
        return dg.SkipReason("Nothing has been materialized or become due since the last check.")
    events = [as_evaluation(key, _result(context.instance, key, now, brapi)) for key in keys]
    return dg.SensorResult(asset_events=events, cursor=seen)


def _why_wait(instance: dg.DagsterInstance, window: Window, cursor: str | None) -> str | None:
    """Why a deployment that has just started is not evaluated yet: its first run has to end."""
    if cursor not in (None, WAITING) or materialized(instance, QUOTES, [window]):
        return None
    if cursor is None:
        return "The startup run has not begun yet."
    under_way = runs_of(instance, window, QUOTES, dg.RunsFilter(statuses=UNFINISHED))
    return f"Run {under_way[0].dagster_run.run_id[:8]} is in progress." if under_way else None


def _due(now: datetime) -> Window | None:
    """The last window that is due by now; None before the first."""
    return WINDOWS.last_ended(now - GRACE)


def _is_there(instance: dg.DagsterInstance, key: dg.AssetKey, now: datetime) -> bool:
    """Whether the last window due is materialized, or the next one is already."""
    windows = [window for window in (_due(now), WINDOWS.last_ended(now)) if window]
    return bool(materialized(instance, key, windows))


def _result(
    instance: dg.DagsterInstance, key: dg.AssetKey, now: datetime, brapi: BrapiResource
) -> dg.AssetCheckResult:
    due = _due(now)
    if due is None:
        return dg.AssetCheckResult(
            asset_key=key, check_name="fresh", passed=True, description="No window is due yet."
        )
    there = _is_there(instance, key, now)
    end = f"{due.end.astimezone(EXCHANGE_TIMEZONE):%a %d %b %H:%M}"
    sentence = (
        f"{due.key}, the last window due, is materialized."
        if there
        else f"{due.key} is missing; it ended {end} in São Paulo. Look at the last run and at "
        "the ticks of every_window, then materialize it."
    )
    summary, metadata = account(instance, key, due, now, brapi.effective_plan)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name="fresh",
        passed=there,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{sentence} {summary}",
        metadata={
            **metadata,
            "window": due.key,
            "ended": dg.MetadataValue.timestamp(due.end),
        },
    )
