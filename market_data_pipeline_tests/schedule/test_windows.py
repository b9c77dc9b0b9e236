"""Which windows exist, which one is live, and what comes next."""

import itertools
from datetime import date, timedelta

import dagster as dg
import pytest

from market_data_pipeline.market import b3_calendar
from market_data_pipeline.market.windows import TradingWindows
from market_data_pipeline_dev.calendar import exceptions
from market_data_pipeline_tests.conftest import at

WINDOWS = TradingWindows()


@pytest.mark.parametrize(
    ("minutes", "day", "opening", "count"),
    [
        (5, "2026-11-19", "10:00", 96),
        (30, "2026-11-19", "10:00", 16),
        (60, "2026-11-19", "10:00", 8),
        (30, "2026-02-18", "13:00", 10),  # Ash Wednesday
    ],
)
def test_every_interval_fills_the_session(minutes: int, day: str, opening: str, count: int) -> None:
    windows = TradingWindows(minutes).of_session(date.fromisoformat(day))

    assert len(windows) == count
    assert windows[0].key == f"{day}T{opening}-0300"
    assert (windows[0].start, windows[-1].end) == (at(f"{day}T{opening}"), at(f"{day}T18:00"))
    assert all(first.end == second.start for first, second in itertools.pairwise(windows))


@pytest.mark.parametrize(
    ("now", "ended", "live"),
    [
        ("2026-11-17T15:00", "2026-11-17T14:30-0300", True),
        ("2026-11-17T15:29:59", "2026-11-17T14:30-0300", True),
        ("2026-11-17T18:00", "2026-11-17T17:30-0300", True),
        ("2026-11-17T23:00", "2026-11-17T17:30-0300", True),
        ("2026-11-18T09:59:59", "2026-11-17T17:30-0300", True),
        # The market trades again: its quotes are not those of the session before.
        ("2026-11-18T10:00", "2026-11-17T17:30-0300", False),
        ("2026-11-18T10:29:59", "2026-11-17T17:30-0300", False),
        ("2026-11-18T10:30", "2026-11-18T10:00-0300", True),
        ("2026-11-20T12:00", "2026-11-19T17:30-0300", True),  # a holiday
        ("2026-11-22T12:00", "2026-11-19T17:30-0300", True),
        ("2026-11-23T10:15", "2026-11-19T17:30-0300", False),
    ],
)
def test_the_last_window_that_has_ended_is_the_last_partition_and_live_until_the_next_one(
    now: str, ended: str, live: bool
) -> None:
    window = WINDOWS.from_key(ended)

    assert WINDOWS.last_ended(at(now)) == window
    assert WINDOWS.is_live(window, at(now)) is live
    with dg.partition_loading_context(effective_dt=at(now)):
        assert WINDOWS.partitions.get_last_partition_key() == ended


@pytest.mark.parametrize("key", ["2026-11-20T10:00-0300", "2026-11-19T18:00-0300"])
def test_a_key_outside_the_sessions_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="B3 is closed then"):
        WINDOWS.from_key(key)


@pytest.mark.parametrize(
    ("minutes", "first"), [(5, date(2027, 7, 1)), (30, date(2026, 1, 2)), (60, date(2020, 1, 2))]
)
def test_the_partitions_are_the_windows_of_the_sessions(minutes: int, first: date) -> None:
    windows = TradingWindows(minutes, first)
    with dg.partition_loading_context(effective_dt=at("2027-12-31T23:00")):
        keys = windows.partitions.get_partition_keys()

    days = (first + timedelta(days=n) for n in range((date(2028, 1, 1) - first).days))
    assert keys == [window.key for day in days for window in windows.of_session(day)]


def test_what_dagster_stores_with_each_check_of_each_window_is_small() -> None:
    assert len(dg.serialize_value(WINDOWS.partitions)) < 15_000


def test_the_calendar_is_that_of_exchange_calendars() -> None:
    assert b3_calendar.openings() == dict(exceptions())
