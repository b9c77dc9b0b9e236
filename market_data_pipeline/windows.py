"""The windows of B3's sessions: which exist, which one is live, which comes next.

A window is a half-open stretch of a session, `[start, end)`. It is due at its end: what is
recorded for it is the market as of `end`. This module is the only place that decides what is live.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import dagster as dg
import exchange_calendars
import pandas as pd

from market_data_pipeline import environment

EXCHANGE_TIMEZONE = ZoneInfo("America/Sao_Paulo")
KEY_FORMAT = "%Y-%m-%dT%H:%M%z"
INTERVALS_IN_MINUTES = (5, 10, 15, 20, 30, 60)
FIRST_HOUR, LAST_HOUR = 10, 18
DEFAULT_FIRST_DAY = date(2026, 1, 2)


@dataclass(frozen=True, order=True)
class Window:
    """A half-open stretch `[start, end)` of one session, both ends in UTC."""

    start: datetime
    end: datetime

    @property
    def key(self) -> str:
        """The partition key: the start in São Paulo with its offset, `2026-11-23T10:00-0300`."""
        return self.start.astimezone(EXCHANGE_TIMEZONE).strftime(KEY_FORMAT)

    @property
    def day(self) -> date:
        """The session's date in São Paulo."""
        return self.start.astimezone(EXCHANGE_TIMEZONE).date()


class TradingWindows:
    """The windows of every B3 session from `first_day` on.

    Args:
        interval_minutes: length of a window; one of 5, 10, 15, 20, 30 and 60.
        first_day: the first day that has windows.

    Raises:
        ValueError: the interval is not one of those, or `first_day` lies outside the calendar.
    """

    def __init__(self, interval_minutes: int = 30, first_day: date = DEFAULT_FIRST_DAY) -> None:
        if interval_minutes not in INTERVALS_IN_MINUTES:
            allowed = ", ".join(map(str, INTERVALS_IN_MINUTES))
            raise ValueError(
                f"SYNC_INTERVAL_MINUTES is {interval_minutes}: set it to one of {allowed}."
            )
        self.interval = timedelta(minutes=interval_minutes)
        self.first_day = first_day
        minutes = "0" if interval_minutes == 60 else f"*/{interval_minutes}"
        self.tick_cron = f"{minutes} * * * *"
        # The hour after the last window belongs to the cron, or that window would run until the
        # next morning; its ticks are then excluded.
        self.partitions = dg.TimeWindowPartitionsDefinition(
            start=_midnight(first_day).strftime(KEY_FORMAT),
            fmt=KEY_FORMAT,
            cron_schedule=f"{minutes} {FIRST_HOUR}-{LAST_HOUR} * * 1-5",
            timezone=EXCHANGE_TIMEZONE.key,
            end_offset=0,
            exclusions=[f"{minutes} {LAST_HOUR} * * 1-5", *self._closed_ticks()],
        )

    def last_ended(self, now: datetime) -> Window:
        """The last window whose end is not after `now`.

        Raises:
            ValueError: no window has ended yet since `first_day`.
        """
        with dg.partition_loading_context(effective_dt=now):
            span = self.partitions.get_last_partition_window()
        if span is None:
            raise ValueError(f"No window has ended since PARTITIONS_START ({self.first_day}).")
        return _window(span)

    def live(self, now: datetime) -> Window | None:
        """The window that the current quotes belong to: the last one that has ended.

        None while the first window of a session runs: the market has moved on from the last
        session, and its quotes must not be filed under that one.
        """
        last = self.last_ended(now)
        following = self.after(last)
        reopened = last.end < following.start <= now
        return None if reopened else last

    def after(self, window: Window) -> Window:
        """The window that follows `window`, in the same session or the next."""
        span = self.partitions.get_next_partition_window(window.end, respect_bounds=False)
        assert span is not None  # the grid has no last window
        return _window(span)

    def before(self, window: Window) -> Window | None:
        """The window that `window` follows, in the same session or the last; None for the first."""
        span = self.partitions.get_prev_partition_window(window.start)
        return span and _window(span)

    def is_last(self, window: Window) -> bool:
        """Whether it is the last window of its session."""
        return self.after(window).start > window.end

    def ending_at(self, instant: datetime) -> Window | None:
        """The window that ends exactly at `instant`, if there is one."""
        last = self.last_ended(instant)
        return last if last.end == instant else None

    def from_key(self, key: str) -> Window:
        """The window of a partition key.

        Raises:
            ValueError: the key is not the start of a window.
        """
        window = _window(self.partitions.time_window_for_partition_key(key))
        if window.key != key:
            raise ValueError(f"{key} is not the start of a window: B3 is closed then.")
        return window

    def of_session(self, day: date) -> list[Window]:
        """The windows of the session on `day` (São Paulo); none when B3 is closed that day."""
        keys = self.partitions.get_partition_keys_in_time_window(
            dg.TimeWindow(_midnight(day), _midnight(day + timedelta(days=1)))
        )
        # Dagster takes milliseconds to find the bounds of a key, and they are known.
        return [Window(start, start + self.interval) for start in map(start_of, keys)]

    def _closed_ticks(self) -> list[datetime]:
        """Every tick of the weekday grid at which B3 is closed, as naive local times."""
        calendar = _calendar(self.first_day)
        hours = {
            session.date(): (opening.to_pydatetime(), closing.to_pydatetime())
            for session, opening, closing in calendar.schedule[["open", "close"]].itertuples()
        }
        closed = []
        for day in _weekdays(self.first_day, calendar.last_session.date()):
            opening, closing = hours.get(day, (None, None))
            for tick in self._ticks(day):
                instant = tick.replace(tzinfo=EXCHANGE_TIMEZONE)
                if opening is None or not opening <= instant < closing:
                    closed.append(tick)
        return closed

    def _ticks(self, day: date) -> Iterator[datetime]:
        tick = datetime(day.year, day.month, day.day, FIRST_HOUR)
        while tick.hour < LAST_HOUR:
            yield tick
            tick += self.interval


@cache
def trading_windows() -> TradingWindows:
    """The windows that the environment asks for (SYNC_INTERVAL_MINUTES, PARTITIONS_START).

    Raises:
        ValueError: a setting does not say what it must; the message says what to set.
    """
    minutes = environment.whole_number("SYNC_INTERVAL_MINUTES", 30)
    return TradingWindows(minutes, environment.day("PARTITIONS_START", DEFAULT_FIRST_DAY))


def start_of(key: str) -> datetime:
    """When the window of a partition key starts, UTC."""
    return datetime.strptime(key, KEY_FORMAT).astimezone(UTC)


def _window(span: dg.TimeWindow) -> Window:
    return Window(span.start.astimezone(UTC), span.end.astimezone(UTC))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), EXCHANGE_TIMEZONE)


def _weekdays(first: date, last: date) -> Iterable[date]:
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return (day for day in days if day.weekday() < 5)


def _calendar(first_day: date) -> exchange_calendars.ExchangeCalendar:
    try:
        return exchange_calendars.get_calendar("BVMF", start=pd.Timestamp(first_day))
    except ValueError as error:
        raise ValueError(f"PARTITIONS_START is {first_day}: {error}") from None
