"""Which windows exist, which one is live, and what comes next."""

import itertools
from datetime import date, timedelta

import dagster as dg
import pytest

from market_data_pipeline.market import b3_calendar
from market_data_pipeline.market.windows import TradingWindows, Window
from market_data_pipeline_dev.calendar import exceptions
from market_data_pipeline_tests.conftest import at

WINDOWS = TradingWindows()


def test_a_session_has_16_windows_of_half_an_hour_from_10_to_18() -> None:
    windows = WINDOWS.of_session(date(2026, 11, 19))

    assert [window.key for window in windows][:2] == [
        "2026-11-19T10:00-0300",
        "2026-11-19T10:30-0300",
    ]
    assert len(windows) == 16
    assert windows[-1] == Window(at("2026-11-19T17:30"), at("2026-11-19T18:00"))
    assert all(first.end == second.start for first, second in itertools.pairwise(windows))


@pytest.mark.parametrize(
    ("day", "why"),
    [
        (date(2026, 11, 22), "a Sunday"),
        (date(2026, 11, 20), "Consciência Negra"),
        (date(2026, 2, 16), "Carnival"),
        (date(2026, 12, 25), "Christmas"),
    ],
)
def test_no_window_when_b3_is_closed(day: date, why: str) -> None:
    assert WINDOWS.of_session(day) == (), why


def test_ash_wednesday_opens_at_13() -> None:
    windows = WINDOWS.of_session(date(2026, 2, 18))

    assert windows[0].start == at("2026-02-18T13:00")
    assert len(windows) == 10


@pytest.mark.parametrize("minutes", [5, 10, 15, 20, 30, 60])
def test_every_interval_fills_the_session(minutes: int) -> None:
    windows = TradingWindows(minutes).of_session(date(2026, 11, 19))

    assert len(windows) == 8 * 60 // minutes
    assert (windows[0].start, windows[-1].end) == (at("2026-11-19T10:00"), at("2026-11-19T18:00"))


@pytest.mark.parametrize(
    ("now", "live"),
    [
        ("2026-11-17T15:00", "2026-11-17T14:30-0300"),
        ("2026-11-17T15:29:59", "2026-11-17T14:30-0300"),
        ("2026-11-17T18:00", "2026-11-17T17:30-0300"),
        ("2026-11-17T23:00", "2026-11-17T17:30-0300"),
        ("2026-11-18T09:59:59", "2026-11-17T17:30-0300"),
        ("2026-11-18T10:30", "2026-11-18T10:00-0300"),
        ("2026-11-22T12:00", "2026-11-19T17:30-0300"),
    ],
)
def test_the_last_window_that_has_ended_is_live(now: str, live: str) -> None:
    window = WINDOWS.live(at(now))

    assert window is not None
    assert window.key == live


@pytest.mark.parametrize("now", ["2026-11-18T10:00", "2026-11-18T10:29:59", "2026-11-23T10:15"])
def test_nothing_is_live_while_a_session_has_its_first_window(now: str) -> None:
    """The market trades again: its quotes are not those of the session before."""
    assert WINDOWS.live(at(now)) is None
    last = WINDOWS.last_ended(at(now))
    assert last is not None
    assert last.key.endswith("T17:30-0300")


def test_no_window_of_the_future_is_a_partition() -> None:
    for now in ("2026-11-17T15:10", "2026-11-22T12:00", "2026-11-20T12:00"):
        with dg.partition_loading_context(effective_dt=at(now)):
            keys = WINDOWS.partitions.get_partition_keys()
        assert WINDOWS.from_key(keys[-1]).end <= at(now)


def test_after_the_year_comes_the_next_session() -> None:
    last = WINDOWS.from_key("2026-12-30T17:30-0300")

    assert WINDOWS.is_last(last)
    assert WINDOWS.after(last).key == "2027-01-04T10:00-0300"


@pytest.mark.parametrize("key", ["2026-11-20T10:00-0300", "2026-11-19T18:00-0300"])
def test_a_key_outside_the_sessions_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="B3 is closed then"):
        WINDOWS.from_key(key)


@pytest.mark.parametrize("first", [date(2020, 1, 2), date(2026, 1, 2)])
def test_the_partitions_are_the_windows_of_the_sessions(first: date) -> None:
    windows = TradingWindows(60, first)
    with dg.partition_loading_context(effective_dt=at("2027-12-31T23:00")):
        keys = windows.partitions.get_partition_keys()

    days = (first + timedelta(days=n) for n in range((date(2028, 1, 1) - first).days))
    assert keys == [window.key for day in days for window in windows.of_session(day)]


def test_what_dagster_stores_with_each_check_of_each_window_is_small() -> None:
    assert len(dg.serialize_value(WINDOWS.partitions)) < 15_000


def test_before_the_first_window_ends_there_is_none() -> None:
    windows = TradingWindows(first_day=date(2026, 11, 23))

    assert windows.last_ended(at("2026-11-22T12:00")) is None
    assert windows.live(at("2026-11-23T10:15")) is None
    assert windows.next_ending(at("2026-11-22T12:00")).key == "2026-11-23T10:00-0300"


def test_the_calendar_is_that_of_exchange_calendars() -> None:
    assert b3_calendar.openings() == dict(exceptions())


@pytest.mark.parametrize("minutes", [5, 30, 60])
def test_the_partitions_are_the_windows(minutes: int) -> None:
    windows = TradingWindows(minutes, date(2026, 1, 2))
    with dg.partition_loading_context(effective_dt=at("2026-12-31T12:00")):
        keys = windows.partitions.get_partition_keys()
    days = (date(2026, 1, 1) + timedelta(days=n) for n in range(365))

    assert keys == [window.key for day in days for window in windows.of_session(day)]
