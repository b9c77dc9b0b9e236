"""When Brapi is to be asked, and whether the quota lasts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import chain

import dagster as dg

from market_data_pipeline.brapi.pacing import Quota, next_run
from market_data_pipeline.brapi.plans import PLANS
from market_data_pipeline.brapi.quota import last_recorded
from market_data_pipeline.market.windows import (
    EXCHANGE_TIMEZONE,
    Window,
    close_of,
    in_sao_paulo,
)
from market_data_pipeline.runs.asset_keys import QUOTES
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline.runs.run_history import materialized
from market_data_pipeline.settings import settings

LONGEST_USAGE_WINDOW_DAYS = 31
# Brapi's quotes may be a little older than the plan says.
CLOSING_GRACE = timedelta(minutes=5)
# Pacing spreads a shortage up to this: each day of a month then has one or two windows less.
MOST_SESSIONS_LEFT_OUT = 2


def once_more(last: Window) -> datetime | None:
    """When the last window of a session is observed again, for the closing prices (UTC).

    That is when the plan can have them; None if the window's end was late enough for that.
    """
    delay = timedelta(minutes=PLANS[settings().brapi_plan].delay_minutes)
    due = close_of(last.day) + delay + CLOSING_GRACE
    return due if due > last.end else None


def last_due(window: Window, now: datetime) -> datetime:
    """When a window, which has ended, was last to be observed: at its end, or once more."""
    again = once_more(window) if WINDOWS.is_last(window) else None
    return again if again and again <= now else window.end


def why_not_yet(instance: dg.DagsterInstance, instant: datetime) -> str | None:
    """Why an observation is skipped to save quota, None if it is not.

    Args:
        instance: where runs record what is left.
        instant: of the observation: the end of a window, or when the last one is observed again.
    """
    quota = last_recorded(instance, instant)
    if quota is None:
        return None
    quota = quota.shared(settings().brapi_quota_share)
    day = instant.astimezone(EXCHANGE_TIMEZONE).date()
    session = WINDOWS.of_session(day)
    if quota.runs > LONGEST_USAGE_WINDOW_DAYS * (len(session) + 1):
        return None
    sessions = _observations(day, quota.until)
    ran = len(materialized(instance, QUOTES, [each for each in session if each.end < instant]))
    following = next_run(instant, sessions, ran, quota)
    if following == instant:
        return None
    left = sum(each >= instant for each in chain(*sessions))
    coming = (
        f"The next one is at {in_sao_paulo(following)}."
        if following
        else "None is planned before then."
    )
    return (
        f"Paced: {quota.left:,} requests are left until {in_sao_paulo(quota.until)}, "
        f"{quota.runs} runs of {quota.cost} for {left} observations. {coming}"
    )


def shortage(quota: Quota, now: datetime) -> str:
    """Why the quota does not last for a run of each window; empty if it does.

    A shortage of up to two sessions does not count unless fewer than two runs are left: pacing
    spreads it.

    Args:
        quota: what is left by the last record, all shares of it.
        now: the current instant (aware).
    """
    quota = quota.shared(settings().brapi_quota_share)
    sessions = _observations(now.astimezone(EXCHANGE_TIMEZONE).date(), quota.until)
    coming = [instant for instant in chain(*sessions) if instant > now]
    # A rolling quota gives back each day what was spent 30 days before.
    left = quota.limit if quota.kind == "rolling-30d" and quota.runs >= 2 else quota.left
    runs = left // quota.cost
    tolerated = MOST_SESSIONS_LEFT_OUT * len(sessions[0]) if coming and runs >= 2 else 1
    if len(coming) - runs <= tolerated:
        return ""
    return (
        f"{left:,} requests until {in_sao_paulo(quota.until)} are {runs} runs of {quota.cost}, and "
        f"{len(coming)} are due before then: {len(coming) - runs} are skipped. Find out who else "
        "uses the token, shorten the watchlist, set a longer `SYNC_INTERVAL_MINUTES`, or move to a "
        "larger plan."
    )


def _observations(first: date, until: datetime) -> Sequence[Sequence[datetime]]:
    """When Brapi is to be asked from a day on and before an instant, by session."""
    days = (first + timedelta(days=n) for n in range(LONGEST_USAGE_WINDOW_DAYS + 1))
    planned = []
    for session in filter(None, map(WINDOWS.of_session, days)):
        again = once_more(session[-1])
        instants = [window.end for window in session] + ([again] if again else [])
        planned.append([instant for instant in instants if instant < until])
    return [each for each in planned if each]
