"""Whether the last window that was due is materialized, on each asset of the job.

Dagster's freshness policies know only a cron and the time of the last materialization. They would
call an asset late on a holiday or after a skipped window, and fresh after a backfill of last March.
This check looks at the window instead.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import dagster as dg

from market_data_pipeline.brapi.quota import last_due, why_paced
from market_data_pipeline.market import clock
from market_data_pipeline.market.b3_calendar import sessions_back
from market_data_pipeline.market.windows import Window, in_sao_paulo, midnight
from market_data_pipeline.runs.common import QUOTES, WINDOWS
from market_data_pipeline.runs.dagster_internals import last_materializations
from market_data_pipeline.runs.results import ERROR, ROW_COUNT, verdict
from market_data_pipeline.runs.run_history import materializations, runs_of, value_of

# A run takes half a minute; in the worst case, five.
GRACE = timedelta(minutes=10)
LAST_SESSIONS = 5
STARTED = "started"


def freshness(keys: Sequence[dg.AssetKey]) -> tuple[dg.AssetChecksDefinition, dg.SensorDefinition]:
    """The check `fresh` of some assets, and the sensor that evaluates it. It launches no run."""
    specs = [
        dg.AssetCheckSpec(
            "fresh",
            asset=key,
            description="The last window due is materialized ten minutes after its end at the "
            "latest; nothing is due at night, on weekends or on holidays. If not: look at the last "
            "run and at the ticks of `every_window` and `launch_missing`.",
        )
        for key in keys
    ]

    @dg.multi_asset_check(name="freshness", specs=specs, can_subset=True)
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        for spec in specs:
            if spec.key in context.selected_asset_check_keys:
                yield _result(context.instance, spec, clock.utc_now())

    @dg.sensor(
        name="watch_freshness",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Evaluates `fresh`, ten minutes after the end of each window and after each "
        "materialization. It launches no run.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """The evaluations of `fresh`; the cursor is what the last tick saw.

        After each materialization of an asset, Dagster shows its check as not evaluated until it
        is evaluated again.
        """
        instance, now = context.instance, clock.utc_now()
        window = _due(now)
        if window is None:
            return dg.SkipReason("No window is due yet.")
        if not _there(instance, QUOTES, now):
            if reason := why_paced(instance, last_due(window, now - GRACE)):
                return dg.SkipReason(f"{window.key} was not due. {reason}")
            if context.cursor is None:
                return dg.SensorResult(skip_reason="The first run begins now.", cursor=STARTED)
            if not all(run.dagster_run.is_finished for run in runs_of(instance, window, QUOTES)):
                return dg.SkipReason(f"A run is in progress for {window.key}.")
        seen = f"{window.key} {last_materializations(instance, keys)}"
        if context.cursor == seen:
            return dg.SkipReason(
                "Nothing has been materialized or become due since the last check."
            )
        results = [_result(instance, spec, now) for spec in specs]
        events = [dg.AssetCheckEvaluation(**result._asdict()) for result in results]
        return dg.SensorResult(asset_events=events, cursor=seen)

    return check, watch


def _due(now: datetime) -> Window | None:
    """The last window that is due by now; None before the first."""
    return WINDOWS.last_ended(now - GRACE)


def _there(instance: dg.DagsterInstance, key: dg.AssetKey, now: datetime) -> list[Window]:
    """The last window due, if it is materialized, and the next one, if that already is."""
    windows = [window for window in (_due(now), WINDOWS.last_ended(now)) if window]
    found = materializations(instance, key, windows)
    return [window for window in windows if found[window]]


def _result(
    instance: dg.DagsterInstance, spec: dg.AssetCheckSpec, now: datetime
) -> dg.AssetCheckResult:
    due = _due(now)
    if due is None:
        return verdict(spec, [], "", "No window is due yet.", ERROR)
    fault, last_sessions = "", _last_sessions(instance, spec.asset_key, due)
    if not (there := _there(instance, spec.asset_key, now)):
        fault = (
            f"{due.key} is missing; it ended {in_sao_paulo(due.end)} in São Paulo. Look at the "
            f"last run and at the ticks of `every_window` and `launch_missing`. {last_sessions}"
        )
    well = f"{there[-1].key} is materialized. {last_sessions}" if there else ""
    return verdict(spec, [due], fault, well, ERROR)


def _last_sessions(instance: dg.DagsterInstance, key: dg.AssetKey, due: Window) -> str:
    """How many windows of the last sessions are missing or empty, and which."""
    windows = [WINDOWS.next_ending(midnight(sessions_back(due.day, LAST_SESSIONS - 1)))]
    while windows[-1] < due:
        windows.append(WINDOWS.next_ending(windows[-1].end))
    found = materializations(instance, key, windows)
    missing = [window for window, records in found.items() if not records]
    # A materialization that was reported by hand has no count, and is trusted.
    empty = [
        window
        for window, records in found.items()
        if records and all(value_of(each, ROW_COUNT) == 0 for each in records)
    ]
    parts = [
        f"{len(each)} are {what} ({each[0].key} to {each[-1].key})"
        for each, what in ((missing, "missing"), (empty, "empty"))
        if each
    ]
    lacking = " and ".join(parts) or "none is missing or empty"
    return f"Of the {len(windows)} windows of the last {LAST_SESSIONS} sessions, {lacking}."
