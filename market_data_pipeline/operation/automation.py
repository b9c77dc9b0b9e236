"""When it runs: at the end of every window, and once when the deployment starts.

Neither asks Brapi for a window that is already stored or in progress, since every request costs
quota, nor for more windows than the quota that is left can last for.
"""

from datetime import datetime, timedelta
from functools import cache
from itertools import chain

import dagster as dg

from market_data_pipeline.brapi.pacing import next_run
from market_data_pipeline.brapi.quota import last_recorded
from market_data_pipeline.market import clock
from market_data_pipeline.market.windows import (
    EXCHANGE_TIMEZONE,
    Window,
    in_sao_paulo,
    trading_windows,
)
from market_data_pipeline.runs.asset_keys import HISTORY, PUBLICATION, QUOTES
from market_data_pipeline.runs.dagster_internals import PARTITION_TAG, daemon_id
from market_data_pipeline.runs.run_history import UNFINISHED, materialized, runs_of
from market_data_pipeline.settings import settings

WINDOWS = trading_windows()
_session = cache(WINDOWS.of_session)
STARTUP_TAG = "market_data/startup"
MOST_STARTUP_RUNS_A_WINDOW = 3
WAITING = "waiting"
TIME_OF_THE_SCHEDULE = timedelta(seconds=20)
LONGEST_USAGE_WINDOW_DAYS = 31

QUOTA_SHARE = settings().brapi_quota_share

FRESHNESS_CHECKS = [dg.AssetCheckKey(key, "fresh") for key in (QUOTES, HISTORY, PUBLICATION)]

market_data_job = dg.define_asset_job(
    "market_data_job",
    # `fresh` looks at what is there between the runs; a sensor does that without a step.
    selection=dg.AssetSelection.all() - dg.AssetSelection.checks(*FRESHNESS_CHECKS),
    description="The quotes of a window, into MongoDB and to Kafka.",
)


@dg.schedule(
    job=market_data_job,
    cron_schedule=WINDOWS.tick_cron,
    execution_timezone=EXCHANGE_TIMEZONE.key,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Launches a run at the end of every window of a B3 session.",
)
def every_window(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """A run for the window that ends at this tick, or the reason why there is none."""
    now = context.scheduled_execution_time
    window = WINDOWS.ending_at(now)
    if window is None:
        return dg.SkipReason(_why_closed(now))
    if _has_passed(window, clock.utc_now()):
        return dg.SkipReason(
            f"No run started for {window.key} before the next window ended; its live quotes can no "
            "longer be fetched. Materialize it from the page of `quotes`."
        )
    if reason := _why_not_again(context.instance, window) or why_not_yet(context.instance, window):
        return dg.SkipReason(reason)
    return dg.RunRequest(run_key=_run_key(window), partition_key=window.key)


@dg.sensor(
    job=market_data_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches one run for the last window that has ended when the deployment starts.",
)
def at_startup(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """One run for each start of Dagster's daemon, unless the window is stored or in progress.

    The daemon's own id tells one start from the next: it is the same however often the code is
    reloaded or its server respawned. It becomes the sensor's cursor once a start has been handled.

    A window that the schedule may be launching at this moment is left to it for one tick: one that
    has just ended, and after a restart any, because the schedule catches up on missed ticks.
    """
    start = daemon_id(context.instance)
    if start is None:
        return dg.SkipReason("The daemon has not reported yet.")
    now = clock.utc_now()
    if context.cursor == start:
        return dg.SkipReason(
            f"The startup run for this daemon start was already handled. {_next_window(now)}"
        )
    window = WINDOWS.last_ended(now)
    if window is None:
        return dg.SkipReason(f"No window has ended yet. {_next_window(now)}")
    reason = (
        _why_not_again(context.instance, window)
        or _why_no_more_starts(context.instance, window)
        or why_not_yet(context.instance, window)
    )
    if reason:
        return dg.SensorResult(skip_reason=reason, cursor=start)
    waiting = f"{start} {WAITING}"
    restarted = context.cursor not in (None, waiting)
    if restarted or now - window.end < TIME_OF_THE_SCHEDULE:
        return dg.SensorResult(
            skip_reason=f"Waiting in case the schedule launches {window.key}.", cursor=waiting
        )
    request = dg.RunRequest(
        run_key=f"{_run_key(window)}/{start}",
        partition_key=window.key,
        tags={STARTUP_TAG: "true"},
    )
    return dg.SensorResult([request], cursor=start)


def _run_key(window: Window) -> str:
    """Tells windows of one start apart that differ in length: SYNC_INTERVAL_MINUTES may change."""
    return f"{window.key} to {window.end.astimezone(EXCHANGE_TIMEZONE):%H:%M}"


def _has_passed(window: Window, now: datetime) -> bool:
    """Whether a later window has ended; a clock that is behind has seen none yet."""
    last = WINDOWS.last_ended(now)
    return last is not None and last > window


def _why_not_again(instance: dg.DagsterInstance, window: Window) -> str | None:
    """Why a window needs no run: its quotes are there, or a run for it is under way."""
    if materialized(instance, QUOTES, [window]):
        return f"The quotes of {window.key} are already stored."
    if under_way := runs_of(instance, window, QUOTES, dg.RunsFilter(statuses=UNFINISHED)):
        run_id = under_way[0].dagster_run.run_id
        return f"Run {run_id[:8]} is in progress for {window.key}."
    return None


def why_not_yet(instance: dg.DagsterInstance, window: Window) -> str | None:
    """Why the quota is kept for another window, None if it is not."""
    quota = last_recorded(instance, window.end)
    if quota is None:
        return None
    quota = quota.shared(QUOTA_SHARE)
    session = _session(window.day)
    if quota.runs > LONGEST_USAGE_WINDOW_DAYS * len(session):
        return None
    days = (window.day + timedelta(days=n) for n in range(LONGEST_USAGE_WINDOW_DAYS + 1))
    windows = [[each for each in _session(day) if each.end < quota.until] for day in days]
    sessions = [windows_of_day for windows_of_day in windows if windows_of_day]
    ran = len(materialized(instance, QUOTES, [each for each in session if each < window]))
    following = next_run(window, sessions, ran, quota)
    if following == window:
        return None
    left = sum(each >= window for each in chain(*sessions))
    coming = (
        f"The next run is at {in_sao_paulo(following.end)}."
        if following
        else "No run is planned before then."
    )
    return (
        f"Paced: {quota.left:,} requests are left until {in_sao_paulo(quota.until)}, "
        f"{quota.runs} runs of {quota.cost} for {left} windows. {coming}"
    )


def _why_no_more_starts(instance: dg.DagsterInstance, window: Window) -> str | None:
    """Why a deployment that keeps crashing does not keep requesting the same window."""
    tags = {PARTITION_TAG: window.key, STARTUP_TAG: "true"}
    starts = len(runs_of(instance, window, QUOTES, dg.RunsFilter(tags=tags)))
    if starts < MOST_STARTUP_RUNS_A_WINDOW:
        return None
    return (
        f"{starts} startup runs have requested {window.key} and none stored its quotes: find out "
        "why they failed, then materialize it from the page of `quotes`."
    )


def _why_closed(now: datetime) -> str:
    local = now.astimezone(EXCHANGE_TIMEZONE)
    session = WINDOWS.of_session(local.date())
    if local.weekday() >= 5:
        reason = f"B3 is closed: {local:%A}."
    elif not session:
        reason = f"B3 is closed: {local:%a %d %b} is a holiday."
    else:
        first, last = (
            instant.astimezone(EXCHANGE_TIMEZONE) for instant in (session[0].start, session[-1].end)
        )
        reason = f"No window ends now: the session goes from {first:%H:%M} to {last:%H:%M}."
    return f"{reason} {_next_window(now)}"


def _next_window(now: datetime) -> str:
    return f"Next window ends {in_sao_paulo(WINDOWS.next_ending(now).end)}."
