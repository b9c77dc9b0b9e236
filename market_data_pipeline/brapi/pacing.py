"""Decides which observations get a run, so that the quota lasts until it is renewed.

The last observation of each session comes first; the others are spread evenly. Every decision
starts from what is left, so a skipped run is not made up for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeVar

T = TypeVar("T")
Kind = Literal["billing-cycle", "rolling-30d", "assumed"]


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


def _evenly(items: Sequence[T], count: int) -> list[T]:
    """That many of the items, evenly spread, with the last one."""
    total = len(items)
    return [
        item
        for number, item in enumerate(items)
        if (number + 1) * count // total > number * count // total
    ]
