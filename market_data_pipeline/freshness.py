"""Whether the last window that was due is there, on each of the three assets.

Dagster's freshness policies know a cron and the time of the last materialization. They call a
holiday late, a session that is paced late, and a backfill of last March fresh. Windows know better:
what is asked here is whether the last one that was due has been materialized.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg

from market_data_pipeline import clock
from market_data_pipeline.assets.checks import as_evaluation
from market_data_pipeline.automation import FRESHNESS_CHECKS, why_not_yet
from market_data_pipeline.run_history import materialized
from market_data_pipeline.windows import EXCHANGE_TIMEZONE, Window, trading_windows

WINDOWS = trading_windows()
# A run takes half a minute, and five minutes at the worst.
GRACE = timedelta(minutes=10)
FRESH = [
    dg.AssetCheckSpec(
        key.name,
        asset=key.asset_key,
        description="The last window that was due is there, ten minutes after its end; nothing is "
        "due at night, at the weekend or on a holiday. If not: look at the last run and at the "
        "ticks of the schedule `every_window`, then materialize the window.",
    )
    for key in FRESHNESS_CHECKS
]


@dg.multi_asset_check(name="freshness", specs=FRESH, can_subset=True)
def freshness(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Says of each asset whether it is fresh now."""
    now = clock.utc_now()
    for key in context.selected_asset_check_keys:
        yield _result(context.instance, key.asset_key, now)


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ten minutes after each window, and when something has changed since: whether the "
    "three assets are fresh. It launches no run.",
)
def watch_freshness(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """The evaluations of `fresh` that are new since the last look, kept as the cursor."""
    now = clock.utc_now()
    window = _due(now)
    if window is None:
        return dg.SkipReason("No window is due yet.")
    if reason := why_not_yet(context.instance, window):
        return dg.SkipReason(f"{window.key} was not due. {reason}")
    results = [_result(context.instance, spec.asset_key, now) for spec in FRESH]
    seen = json.dumps([window.key, *(result.passed for result in results)])
    if context.cursor is None:
        # The run at startup has not had its time.
        return dg.SensorResult(skip_reason="The first look is in a minute.", cursor="waited")
    if context.cursor == seen:
        return dg.SkipReason(" ".join(dict.fromkeys(str(each.description) for each in results)))
    return dg.SensorResult(
        asset_events=[
            as_evaluation(spec.asset_key, each) for spec, each in zip(FRESH, results, strict=True)
        ],
        cursor=seen,
    )


def _due(now: datetime) -> Window | None:
    """The last window that is due by now; None before the first."""
    return WINDOWS.last_ended(now - GRACE)


def _result(instance: dg.DagsterInstance, key: dg.AssetKey, now: datetime) -> dg.AssetCheckResult:
    due, last = _due(now), WINDOWS.last_ended(now)
    if due is None or last is None:
        return dg.AssetCheckResult(
            asset_key=key, check_name="fresh", passed=True, description="No window is due yet."
        )
    there = bool(materialized(instance, key, [due, last]))  # the next one may be there already
    end = f"{due.end.astimezone(EXCHANGE_TIMEZONE):%a %d %b %H:%M}"
    return dg.AssetCheckResult(
        asset_key=key,
        check_name="fresh",
        passed=there,
        severity=dg.AssetCheckSeverity.ERROR,
        description=(
            f"{due.key}, the last window due, is there."
            if there
            else f"{due.key} is missing, it ended {end} in São Paulo: look at the last run and at "
            "the ticks of every_window, then materialize it."
        ),
        metadata={"window": due.key, "ended": dg.MetadataValue.timestamp(due.end)},
    )
