"""The quota lasts to the end of its time: three months of real sessions, simulated."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from market_data_pipeline.brapi.quota import Quota, next_run, once_more, planned
from market_data_pipeline.runs.common import WINDOWS

LIMIT, COST = 15_000, 50
DAYS = [date(2027, 2, 1) + timedelta(days=n) for n in range(89)]


def observations(day: date) -> list[datetime]:
    """When Brapi is to be asked on a day: at the end of each window, until 14 March once more."""
    windows = WINDOWS.of_session(day)
    again = once_more(windows[-1]) if windows else None
    return [window.end for window in windows] + ([again] if again else [])


SESSIONS = {day: instants for day in DAYS if (instants := observations(day))}
FEBRUARY, MARCH, APRIL = (
    [session for day, session in SESSIONS.items() if day.month == month] for month in (2, 3, 4)
)
in_each_month = pytest.mark.parametrize(
    "sessions", [FEBRUARY, MARCH, APRIL], ids=["February", "March", "April"]
)


def simulate(
    sessions: list[list[datetime]],
    shares: Mapping[int, float] = {COST: 1.0},
    /,
    *,
    left: int = LIMIT,
    others: int = 0,
    repeated: int = 0,
) -> Iterator[tuple[datetime, int, int]]:
    """The observations that have a run in one billing cycle, its cost, and what is left after it.

    Args:
        sessions: the sessions of the cycle.
        shares: of those that share the quota, by what a run of each costs.
        left: what is left at its start.
        others: what other users of the token spend each day.
        repeated: how many requests every tenth run needs beyond its own.
    """
    until, runs, recorded = datetime(2027, 5, 1, tzinfo=UTC), 0, left
    for number, session in enumerate(sessions):
        left -= others
        ran = dict.fromkeys(shares, 0)
        for instant in session:
            for cost, share in shares.items():
                quota = Quota(recorded, LIMIT, cost, until, "billing-cycle").shared(share)
                if next_run(instant, sessions[number:], ran[cost], quota) != instant:
                    continue
                ran[cost], runs = ran[cost] + 1, runs + 1
                left -= cost + (repeated if runs % 10 == 0 else 0)
                recorded = left
                yield instant, cost, left


@in_each_month
@pytest.mark.parametrize("spending", [{}, {"others": 100}, {"repeated": 20}])
def test_the_quota_lasts_and_every_session_has_its_last_observation(
    sessions: list[list[datetime]], spending: dict[str, int]
) -> None:
    runs = list(simulate(sessions, **spending))

    assert all(left >= 0 for *_, left in runs)
    chosen = {instant for instant, *_ in runs}
    assert all(session[-1] in chosen for session in sessions)
    # What is not used is lost: at most what a day of three would have had.
    all_of_them = sum(len(session) for session in sessions)
    assert len(chosen) == all_of_them or runs[-1][-1] < 3 * COST


@in_each_month
def test_two_that_share_a_quota_both_last_to_the_end(sessions: list[list[datetime]]) -> None:
    shares = {34: 0.68, 16: 0.32}

    runs = list(simulate(sessions, shares))

    chosen = {(cost, instant) for instant, cost, _ in runs}
    assert all((cost, session[-1]) in chosen for cost in shares for session in sessions)
    all_of_them = sum(len(session) for session in sessions)
    assert 0 <= runs[-1][-1] < 3 * COST or len(chosen) == 2 * all_of_them


@in_each_month
@pytest.mark.parametrize("left", [15_000, 9_000, 5_000, 2_500])
def test_the_others_are_spread_evenly(sessions: list[list[datetime]], left: int) -> None:
    sessions = [session for session in sessions if len(session) >= 16]

    chosen = {instant for instant, *_ in simulate(sessions, left=left)}

    counts = [sum(instant in chosen for instant in session) for session in sessions]
    assert max(counts) - min(counts) <= 2
    for session in sessions:
        ran = [-1, *(number for number, instant in enumerate(session) if instant in chosen)]
        gaps = [later - earlier for earlier, later in pairwise(ran)]
        assert max(gaps) - min(gaps) <= 1


def test_an_ample_quota_skips_nothing() -> None:
    assert len(planned(MARCH, 500_000 // 3)) == sum(len(session) for session in MARCH)


def test_too_little_for_every_session_still_serves_the_last_day() -> None:
    chosen = [instant for instant, *_ in simulate(MARCH, left=8 * COST)]

    assert 6 <= len(chosen) <= 8
    assert chosen[-1] == MARCH[-1][-1]


def test_a_spent_quota_is_looked_at_once_a_session() -> None:
    spent = Quota(3, LIMIT, COST, datetime(2027, 4, 1, tzinfo=UTC), "assumed")

    assert {next_run(instant, MARCH, 0, spent) for instant in MARCH[0]} == {MARCH[0][-1]}


def test_thirty_days_that_roll_are_never_overspent() -> None:
    """What was spent comes back 30 days later."""
    spent: dict[datetime, int] = {}
    for day, session in SESSIONS.items():
        ahead = [s for d, s in SESSIONS.items() if day <= d < day + timedelta(days=30)]
        if day + timedelta(days=30) > DAYS[-1]:
            break
        ran = 0
        for instant in session:
            recent = [c for w, c in spent.items() if w > instant - timedelta(days=30)]
            left = LIMIT - sum(recent)
            quota = Quota(left, LIMIT, COST, instant + timedelta(days=30), "rolling-30d")
            if next_run(instant, ahead, ran, quota) == instant:
                ran += 1
                spent[instant] = COST
                assert left >= COST
        assert session[-1] in spent
    assert len(spent) > 500
