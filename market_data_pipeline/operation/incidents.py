"""What is wrong at an instant, as incidents with a message each.

Each function reads the runs, the materializations and the stored rows, and keeps no state. An
incident has the same key for as long as it lasts, however often it is looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from market_data_pipeline.brapi.quota import last_recorded
from market_data_pipeline.market.b3_calendar import sessions_back
from market_data_pipeline.market.price_guard import explain, run_config
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import (
    EXCHANGE_TIMEZONE,
    Window,
    in_sao_paulo,
    start_of,
    trading_windows,
)
from market_data_pipeline.operation.automation import QUOTA_SHARE, why_not_yet
from market_data_pipeline.operation.freshness import GRACE
from market_data_pipeline.publication.publications import missing, sent
from market_data_pipeline.runs.asset_keys import HISTORY, PUBLICATION, QUOTES
from market_data_pipeline.runs.dagster_internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_TAG,
)
from market_data_pipeline.runs.run_history import materialized

WINDOWS = trading_windows()
SESSIONS_LOOKED_AT = 2
# Pacing spreads a shortage that is smaller than that; each day of a month then lacks a window.
MOST_SESSIONS_LEFT_OUT = 2
LONGEST_REASON = 1_000  # characters

Rows = Mapping[Window, Sequence[Quote]]


@dataclass(frozen=True)
class Incident:
    """Something that is wrong now."""

    key: str
    """What is wrong, in a few words; it stays the same for as long as the incident lasts."""
    text: str
    """Why, and what to do."""
    run_id: str = ""
    """The run that failed, if it is one."""
    since: datetime | None = None
    """When that run failed, by the clock of Dagster's storage."""


def recent_windows(now: datetime) -> list[Window]:
    """The windows of the last two sessions that have ended by `now` (aware), newest first."""
    last = WINDOWS.last_ended(now)
    if last is None:
        return []
    days = {sessions_back(last.day, back) for back in range(SESSIONS_LOOKED_AT)}
    windows = (window for day in days for window in WINDOWS.of_session(day))
    return sorted((window for window in windows if window.end <= now), reverse=True)


def failed_runs(
    instance: dg.DagsterInstance, since: datetime, ours: Callable[[dg.DagsterRun], bool]
) -> list[Incident]:
    """The runs that failed and were not made good since.

    A failure is made good by later runs of the same job that succeed in the steps that failed, for
    all of its windows or for a later window.

    Args:
        instance: where the runs are.
        since: failures before that (UTC) are left out.
        ours: whether a run is one of this code location.
    """
    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    found: dict[str, Incident] = {}
    for record in instance.get_run_records(wanted):
        run = record.dagster_run
        windows = " to ".join(dict.fromkeys(_ends(run) or ()))
        key = f"run of {run.job_name}{' for ' if windows else ''}{windows} failed"
        if key in found or not ours(run) or _made_good(instance, record, ours):
            continue
        failed_at = record.update_timestamp.replace(tzinfo=UTC)
        found[key] = Incident(key, _why_it_failed(instance, run.run_id), run.run_id, failed_at)
    return list(found.values())


def missing_windows(
    instance: dg.DagsterInstance, windows: Sequence[Window], now: datetime
) -> list[Incident]:
    """Whether a window is due and missing, in `quotes` and in `mongo_price_history`.

    A window that pacing leaves out is not due, and a later one that is there makes up for it. The
    collection is due what `quotes` has.
    """
    quotes, history = (materialized(instance, key, windows) for key in (QUOTES, HISTORY))
    behind = {
        QUOTES: _behind(
            windows, quotes, lambda each: _due(each, now) and not why_not_yet(instance, each)
        ),
        HISTORY: _behind(windows, history, lambda each: _due(each, now) and each in quotes),
    }
    return [
        Incident(
            f"a window is missing in {asset.to_user_string()}",
            f"{window.key} ended {in_sao_paulo(window.end)} in São Paulo and is missing: look at "
            "the last run and at the ticks of `every_window`, then materialize "
            f"{'all assets' if asset == QUOTES else f'`{asset.to_user_string()}`'} for it.",
        )
        for asset, window in behind.items()
        if window
    ]


def unpublished_windows(
    instance: dg.DagsterInstance, rows: Rows, topic: str, now: datetime
) -> list[Incident]:
    """Whether the last window with live quotes was published whole.

    Args:
        instance: where the publications are recorded.
        rows: the stored rows of the recent windows, newest window first.
        topic: where they are published.
        now: the current instant; a window that is not due yet may still be in progress.
    """
    live = {
        window: quotes
        for window, of_window in rows.items()
        if (quotes := [quote for quote in of_window if quote.source == "live"])
    }
    there = sent(instance, list(live), topic)
    window = next((each for each in live if there[each] or _due(each, now)), None)
    if window is None:
        return []
    held_back = sorted(quote.ticker for quote in live[window] if not quote.trusted)
    # A run may be about to send the others.
    settled = [quote for quote in live[window] if quote.observed_at + GRACE <= now]
    if not there[window]:
        text = (
            f"{window.key} is stored and not on the topic: look at its run, then materialize "
            f"`{PUBLICATION.to_user_string()}` alone. The window is live until "
            f"{in_sao_paulo(WINDOWS.live_until(window))}; after that, publishing it requires "
            "`publish_history: true`."
        )
    elif held_back:
        text = (
            f"{window.key} is on the topic without {', '.join(held_back)}: the prices are "
            "withheld. Accept those that are right."
        )
    elif lacking := missing(settled, there[window]):
        text = (
            f"{window.key} is on the topic without {', '.join(lacking)}, whose prices were stored "
            f"later: materialize `{PUBLICATION.to_user_string()}` alone while the window is live."
        )
    else:
        return []
    return [Incident("the last live window was not published whole", text)]


def withheld_prices(rows: Rows) -> list[Incident]:
    """The instruments whose newest price is withheld.

    Args:
        rows: the stored rows of the recent windows, newest window first.
    """
    newest, seen = dict[str, tuple[Window, Quote]](), set[str]()
    for window, of_window in rows.items():
        for quote in of_window:
            if quote.ticker not in seen:
                newest[quote.ticker] = window, quote
            seen.update(quote.symbols)
    op = PUBLICATION.to_python_identifier()
    return [
        Incident(
            f"the price of {ticker} is withheld",
            f"{explain(quote)}, in {window.key}. If the move is real, launch "
            f"`{PUBLICATION.to_user_string()}` for {window.key} with the run config "
            f"`{run_config(op, [ticker])}`. If not, there is nothing to do.",
        )
        for ticker, (window, quote) in newest.items()
        if not quote.trusted
    ]


def quota_running_out(instance: dg.DagsterInstance, now: datetime) -> list[Incident]:
    """Whether a run for each window would spend the quota before it is given back.

    A shortage of up to two sessions is not reported unless fewer than two runs are left: pacing
    spreads it.
    """
    quota = last_recorded(instance, now)
    if quota is None:
        return []
    quota = quota.shared(QUOTA_SHARE)
    coming = _ending_between(now, quota.until)
    # What is spent of a quota that rolls comes back at the pace of its spending.
    left = quota.limit if quota.kind == "rolling-30d" and quota.runs >= 2 else quota.left
    runs = left // quota.cost
    left_out = len(coming) - runs
    tolerated = MOST_SESSIONS_LEFT_OUT * len(WINDOWS.of_session(coming[0].day)) if coming else 0
    if left_out <= (tolerated if runs >= 2 else 1):
        return []
    return [
        Incident(
            "the quota of Brapi will not last",
            f"{left:,} requests until {in_sao_paulo(quota.until)} are {runs} runs of {quota.cost}, "
            f"and {len(coming)} windows end before then. With a run for each window, nothing would "
            f"be left at {in_sao_paulo(coming[runs].end)}; {left_out} windows are skipped instead. "
            "Find out who else uses the token, shorten the watchlist, set a longer "
            "`SYNC_INTERVAL_MINUTES`, or move to a larger plan.",
        )
    ]


def _behind(
    windows: Sequence[Window], there: Sequence[Window], expected: Callable[[Window], bool]
) -> Window | None:
    """The newest window that is expected, unless that or a newer one is there."""
    for window in windows:
        if window in there:
            return None
        if expected(window):
            return window
    return None


def _due(window: Window, now: datetime) -> bool:
    return window.end + GRACE <= now


def _ending_between(after: datetime, before: datetime) -> list[Window]:
    first = after.astimezone(EXCHANGE_TIMEZONE).date()
    days = (before.astimezone(EXCHANGE_TIMEZONE).date() - first).days + 1
    windows = (
        window for n in range(days) for window in WINDOWS.of_session(first + timedelta(days=n))
    )
    return [window for window in windows if after < window.end < before]


def _ends(run: dg.DagsterRun) -> tuple[str, str] | None:
    """The first and the last window of a run, None if it has no windows."""
    first = run.tags.get(PARTITION_TAG) or run.tags.get(ASSET_PARTITION_RANGE_START_TAG)
    last = run.tags.get(PARTITION_TAG) or run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
    return (first, last) if first and last else None


def _made_good(
    instance: dg.DagsterInstance, failed: dg.RunRecord, ours: Callable[[dg.DagsterRun], bool]
) -> bool:
    wanted = dg.RunsFilter(
        job_name=failed.dagster_run.job_name,
        statuses=[dg.DagsterRunStatus.SUCCESS],
        created_after=failed.create_timestamp,
    )
    left = _steps(instance, failed.dagster_run.run_id, dg.DagsterEventType.STEP_FAILURE)
    for run in (record.dagster_run for record in instance.get_run_records(wanted)):
        if ours(run) and _covers(run, failed.dagster_run):
            left -= _steps(instance, run.run_id, dg.DagsterEventType.STEP_SUCCESS)
            if not left:
                return True
    return False


def _steps(
    instance: dg.DagsterInstance, run_id: str, ended: dg.DagsterEventType
) -> set[str | None]:
    """The steps of a run that ended so."""
    records = instance.get_records_for_run(run_id, of_type=ended).records
    events = (record.event_log_entry.dagster_event for record in records)
    return {event.step_key for event in events if event}


def _covers(run: dg.DagsterRun, failed: dg.DagsterRun) -> bool:
    """Whether a run was for all windows of one that failed, or for a later window."""
    ends, missed = _ends(run), _ends(failed)
    if ends is None or missed is None:
        return ends == missed
    first, last = map(start_of, ends)
    missed_first, missed_last = map(start_of, missed)
    return last > missed_last or first <= missed_first <= missed_last <= last


def _why_it_failed(instance: dg.DagsterInstance, run_id: str) -> str:
    """A line for each step that failed.

    A `Failure` is a sentence of this project, which holds no secret. Of any other error only the
    name is told: its text may hold anything.
    """
    reasons = []
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    for event in (record.event_log_entry.dagster_event for record in records):
        if event is None:
            continue
        failure = event.step_failure_data
        told = failure.user_failure_data and failure.user_failure_data.description
        cause = failure.error and (failure.error.cause or failure.error)
        name = cause.cls_name if cause else "unknown error"
        reason = " ".join((told or f"{name}, see the log of the run").split())
        reasons.append(f"{event.step_key}: {reason[:LONGEST_REASON]}")
    return "\n".join(reasons) or "No step failed: see the log of the run."
