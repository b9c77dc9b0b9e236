"""Run or skip: spreads what is left of the quota over the observations that it has to last for.

Each session's last one comes first, the others are spread evenly. What was skipped is not made
up for, nor is what others have spent: every decision starts from what is left.
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
    """When Brapi is asked next, from an instant on; None if not at all as long as quota lasts.

    Args:
        instant: that of the observation at hand.
        sessions: when Brapi is to be asked until the quota's time is over, by session, from the
            first observation of the session at hand.
        ran: how many observations of the session at hand had a run before `instant`.
        quota: what is left now.
    """
    if quota.kind == "rolling-30d":
        # What is spent comes back at the pace of its spending: the whole lasts for 30 days.
        chosen = planned(sessions, quota.limit // quota.cost)
    else:
        chosen = planned(sessions, quota.runs + ran)
    if quota.runs < 2:
        chosen = [session[-1] for session in sessions if session[-1] in chosen]
    return next((each for each in chosen if each >= instant), None)


def planned(sessions: Sequence[Sequence[datetime]], runs: int) -> list[datetime]:
    """Those observations that so many runs are spent on, in order.

    With fewer runs than sessions, every second session's last one (or third, …) has one, to the
    end; with none, all last ones have: one of them finds that there is quota again.
    """
    lasts = [session[-1] for session in sessions]
    if runs < len(lasts):
        every = -(-len(lasts) // max(runs, 1)) if runs else 1
        return lasts[::-1][::every][::-1]
    others = sum(len(session) - 1 for session in sessions)
    spare = min(others, max(0, runs - len(lasts) - 1))  # one run is kept for requests repeated
    chosen: list[datetime] = []
    passed = given = 0
    for session in sessions:
        passed += len(session) - 1
        share = spare * passed // others - given if others else 0
        given += share
        chosen += _evenly(session, 1 + share)
    return chosen


def _evenly(items: Sequence[T], count: int) -> list[T]:
    """So many of the items, as far apart as can be, the last one among them."""
    total = len(items)
    return [
        item
        for number, item in enumerate(items)
        if (number + 1) * count // total > number * count // total
    ]
