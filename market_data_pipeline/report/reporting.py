"""When a session is reported: after its last window, and whenever its quotes change later."""

import json
from datetime import date, timedelta
from typing import Any

import dagster as dg

from market_data_pipeline.market import clock
from market_data_pipeline.market.b3_calendar import sessions_back
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, start_of
from market_data_pipeline.report.session_report import report, session_report
from market_data_pipeline.runs.asset_keys import PUBLICATION, QUOTES
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline.runs.run_history import materialized

# The run of the last window takes a while after the window's end.
GRACE = timedelta(minutes=10)
MOST_EVENTS, MOST_SESSIONS = 1_000, 20


@dg.sensor(
    job=session_report,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches the job `session_report` ten minutes after the last window of a session, "
    "and whenever quotes or publications are added to a past session.",
)
def report_sessions(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """One run for all sessions that are due; the cursor holds the newest events seen."""
    instance, now = context.instance, clock.utc_now()
    seen = json.loads(context.cursor) if context.cursor else {}
    last = WINDOWS.last_ended(now - GRACE)
    if last and not WINDOWS.is_last(last):
        last = WINDOWS.last_ended(WINDOWS.of_session(last.day)[0].start)
    if last is None:
        return dg.SkipReason("No session has ended yet.")
    over = last.day
    days = set[date]()
    events = {}
    for key in (QUOTES, PUBLICATION):
        name = key.to_user_string()
        changed, events[name] = _changed(instance, key, seen.get(name))
        days |= {day for day in changed if day <= over and WINDOWS.of_session(day)}
    for day in _over_since(seen.get("session"), over):
        if materialized(instance, QUOTES, WINDOWS.of_session(day)):
            days.add(day)
    cursor = json.dumps({**events, "session": f"{over}"})
    if not days:
        return dg.SensorResult(skip_reason=f"No session up to {over} has changed.", cursor=cursor)
    sessions = sorted(f"{day}" for day in days)
    config: dict[str, Any] = {"ops": {report.name: {"config": {"sessions": sessions}}}}
    return dg.SensorResult([dg.RunRequest(run_key=cursor, run_config=config)], cursor=cursor)


def _over_since(seen: str | None, over: date) -> set[date]:
    """The sessions after the last one that was over before; the daemon may have been down."""
    if seen is None:
        return {over}
    days = {sessions_back(over, back) for back in range(MOST_SESSIONS)}
    return {day for day in days if day > date.fromisoformat(seen)}


def _changed(
    instance: dg.DagsterInstance, key: dg.AssetKey, seen: int | None
) -> tuple[set[date], int]:
    """The sessions with a materialization after the event `seen`, and the newest event read."""
    if seen is None:
        found = instance.fetch_materializations(key, limit=1).records
        return set(), found[0].storage_id if found else 0
    since = dg.AssetRecordsFilter(asset_key=key, after_storage_id=seen)
    found = instance.fetch_materializations(since, limit=MOST_EVENTS, ascending=True).records
    keys = {record.partition_key for record in found if record.partition_key}
    days = {start_of(each).astimezone(EXCHANGE_TIMEZONE).date() for each in keys}
    return days, found[-1].storage_id if found else seen
