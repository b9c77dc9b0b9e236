"""When Brapi is to be asked, and whether the quota lasts.

The last observation of each session comes first; the others are spread evenly over what is left of
the quota. Every decision starts from what is left, so a skipped run is not made up for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import chain
from typing import TypeVar

import dagster as dg

from market_data_pipeline.brapi.plans import PLANS
from market_data_pipeline.brapi.quota import Quota, last_recorded
from market_data_pipeline.market.windows import (
    EXCHANGE_TIMEZONE,
    Window,
    close_of,
    in_sao_paulo,
)
from market_data_pipeline.runs.common import QUOTES, WINDOWS
from market_data_pipeline.runs.run_history import materialized
from market_data_pipeline.settings import settings

T = TypeVar("T")
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


def why_paced(instance: dg.DagsterInstance, instant: datetime) -> str | None:
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


def next_run(
    instant: datetime, sessions: Sequence[Sequence[datetime]], ran: int, quota: Quota
) -> datetime | None:
    """When Brapi is asked next, from an instant on; None if not before the quota is renewed.

    Args:
        instant: that of the observation at hand.
        sessions: when Brapi is to be asked until the quota's time is over, by session, from the
            first observation of the session at hand.
        ran: how many observations of the session at hand had a run before `instant`.
        quota: what is left now.
    """
    if quota.kind == "rolling-30d":
        # Spent requests come back after 30 days: the limit, not the rest, is spread over them.
        chosen = planned(sessions, quota.limit // quota.cost)
    else:
        chosen = planned(sessions, quota.runs + ran)
    if quota.runs < 2:
        chosen = [session[-1] for session in sessions if session[-1] in chosen]
    return next((each for each in chosen if each >= instant), None)


def planned(sessions: Sequence[Sequence[datetime]], runs: int) -> list[datetime]:
    """The observations that get one of so many runs, in order.

    If there are fewer runs than sessions, the last observation of every second (third, …) session
    gets one. If there are none, all last observations get one, to find out when there is quota
    again.
    """
    lasts = [session[-1] for session in sessions]
    if runs < len(lasts):
        every = -(-len(lasts) // max(runs, 1)) if runs else 1
        return lasts[::-1][::every][::-1]
    others = sum(len(session) - 1 for session in sessions)
    spare = min(others, max(0, runs - len(lasts) - 1))  # one is kept for repeated requests
    chosen: list[datetime] = []
    passed = given = 0
    for session in sessions:
        passed += len(session) - 1
        share = spare * passed // others - given if others else 0
        given += share
        chosen += _evenly(session, 1 + share)
    return chosen


def _observations(first: date, until: datetime) -> Sequence[Sequence[datetime]]:
    """When Brapi is to be asked from a day on and before an instant, by session."""
    days = (first + timedelta(days=n) for n in range(LONGEST_USAGE_WINDOW_DAYS + 1))
    planned = []
    for session in filter(None, map(WINDOWS.of_session, days)):
        again = once_more(session[-1])
        instants = [window.end for window in session] + ([again] if again else [])
        planned.append([instant for instant in instants if instant < until])
    return [each for each in planned if each]


def _evenly(items: Sequence[T], count: int) -> list[T]:
    """That many of the items, evenly spread, with the last one."""
    total = len(items)
    return [
        item
        for number, item in enumerate(items)
        if (number + 1) * count // total > number * count // total
    ]
