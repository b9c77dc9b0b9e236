"""What is left of Brapi's quota, which every run of `quotes` records, and when it lets us ask.

The last observation of each session comes first; the others are spread evenly over what is left of
the quota. Every decision starts from what is left, so a skipped run is not made up for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from statistics import median
from typing import Any, Literal

import dagster as dg

from market_data_pipeline.brapi.client import BrapiClient
from market_data_pipeline.brapi.plans import PLANS
from market_data_pipeline.market.windows import (
    EXCHANGE_TIMEZONE,
    Window,
    close_of,
    in_sao_paulo,
)
from market_data_pipeline.runs.common import QUOTES, WINDOWS
from market_data_pipeline.runs.run_history import materializations
from market_data_pipeline.settings import settings

Kind = Literal["billing-cycle", "rolling-30d", "assumed"]
ROLLING = timedelta(days=30)
RUNS_FOR_THE_COST = 5
LONGEST_USAGE_WINDOW_DAYS = 31
# Brapi's quotes may be a little older than the plan says.
CLOSING_GRACE = timedelta(minutes=5)
# Pacing spreads a shortage up to this: each day of a month then has one or two windows less.
MOST_SESSIONS_LEFT_OUT = 2
RECORDED = ("quota_left", "quota_limit", "quota_cost_of_a_run", "quota_until", "quota_window")


@dataclass(frozen=True)
class Quota:
    """What is left, for how long, and what a run costs, in requests.

    A `billing-cycle` renews all of `limit` at `until`. A `rolling-30d` quota gives back each day
    what was spent 30 days before. `assumed` is the calendar month, as long as Brapi has not said
    when its billing cycle ends.
    """

    left: int
    limit: int
    cost: int
    """Of one run; at least 1."""
    until: datetime
    """Aware, in UTC."""
    kind: Kind

    @property
    def runs(self) -> int:
        """How many runs are left."""
        return self.left // self.cost

    def shared(self, share: float) -> Quota:
        """The part of one of several that spend the same quota; `share` is from 0 to 1."""
        return replace(self, left=int(self.left * share), limit=int(self.limit * share))


def last_recorded(instance: dg.DagsterInstance, now: datetime) -> Quota | None:
    """What is left at `now` (aware) by the last record; None if there is none.

    The figures are whole requests of the token's quota: `BRAPI_QUOTA_SHARE` is not applied, see
    `Quota.shared`. The cost of a run is the median of the last runs, since one with many repeated
    requests is not typical. After `until` the whole quota counts as available again, until Brapi
    says more.
    """
    found = instance.fetch_observations(QUOTES, limit=RUNS_FOR_THE_COST).records
    described = [each.asset_observation.metadata for each in found if each.asset_observation]
    records: list[Any] = [
        [metadata[name].value for name in RECORDED]
        for metadata in described
        if all(name in metadata for name in RECORDED)
    ]
    if not records:
        return None
    left, limit, _, until, kind = records[0]
    costs = [cost for _, limit_then, cost, *_ in records if limit_then == limit]  # the same plan
    quota = Quota(left, limit, int(median(costs)), datetime.fromtimestamp(until, UTC), kind)
    if quota.kind == "rolling-30d":
        return replace(quota, until=now + ROLLING)
    if now < quota.until:
        return quota
    return replace(quota, left=quota.limit, until=_next_month(now), kind="assumed")


def measured(client: BrapiClient, last: Quota | None, now: datetime) -> Quota | None:
    """What is left after the requests of a run; estimated from `last` if no answer said.

    A run of the live window asks Brapi for the usage window if it is not known or over, if the
    token has moved to another plan, or if more is left than before, as with another token.
    """
    account, cost = client.account, client.cost_of_the_quotes
    if account.left is None:
        # No answer said: each request that was sent counts. A rolling quota gives as much back.
        if last is None or last.kind == "rolling-30d":
            return last
        return replace(last, left=max(0, last.left - client.requests))
    limit = account.limit or max(last.limit if last else 0, account.left)
    renewed = last and account.left > last.left
    if last and last.limit == limit and not (renewed or (cost and last.kind == "assumed")):
        return replace(last, left=account.left, cost=cost or last.cost)
    kind, end = (client.usage_window() if cost else None) or ("", now)
    cost = cost or account.spent
    if kind == "rolling-30d":
        return Quota(account.left, limit, cost, now + ROLLING, "rolling-30d")
    if end > now:
        return Quota(account.left, limit, cost, end, "billing-cycle")
    return Quota(account.left, limit, cost, _next_month(now), "assumed")


def record(quota: Quota) -> dg.AssetObservation:
    """The record of a quota: an observation of `quotes`, which a failed run records, too."""
    until = dg.MetadataValue.timestamp(quota.until)
    values: tuple[Any, ...] = (quota.left, quota.limit, quota.cost, until, quota.kind)
    return dg.AssetObservation(QUOTES, metadata=dict(zip(RECORDED, values, strict=True)))


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
    """Why the observation at an instant (see `last_due`) is skipped to save quota, if it is."""
    quota = last_recorded(instance, instant)
    if quota is None:
        return None
    quota = quota.shared(settings().brapi_quota_share)
    day = instant.astimezone(EXCHANGE_TIMEZONE).date()
    session = WINDOWS.of_session(day)
    if quota.runs > LONGEST_USAGE_WINDOW_DAYS * (len(session) + 1):
        return None
    sessions = _observations(day, quota.until)
    earlier = [each for each in session if each.end < instant]
    ran = sum(map(bool, materializations(instance, QUOTES, earlier).values()))
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
    """Why this location's share of the quota does not last for a run of each window; or empty.

    A shortage of up to two sessions does not count unless fewer than two runs are left: pacing
    spreads it.
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

    `sessions` has when Brapi is to be asked until the quota's time is over, from the first
    observation of the session at hand; `ran` of these had a run before the instant.
    """
    # Requests that are spent come back after 30 days: the limit, not the rest, is spread over them.
    rolling = quota.kind == "rolling-30d"
    chosen = planned(sessions, quota.limit // quota.cost if rolling else quota.runs + ran)
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


def _evenly(items: Sequence[datetime], count: int) -> list[datetime]:
    """That many of the items, evenly spread, with the last one."""
    total = len(items)
    return [
        item
        for number, item in enumerate(items)
        if (number + 1) * count // total > number * count // total
    ]


def _next_month(now: datetime) -> datetime:
    """When the calendar month ends, in UTC."""
    year, month = divmod(now.astimezone(UTC).year * 12 + now.astimezone(UTC).month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)
