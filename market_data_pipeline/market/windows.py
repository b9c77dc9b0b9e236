"""The windows of B3's sessions: which exist, which one is live, which comes next.

A window is a half-open part of a session, `[start, end)`. It is due when it ends, and has the
prices at its end. Only this module decides what is live.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from market_data_pipeline.market import b3_calendar, clock
from market_data_pipeline.settings import INTERVALS_IN_MINUTES, LAST_DAY

EXCHANGE_TIMEZONE = ZoneInfo("America/Sao_Paulo")
KEY_FORMAT = "%Y-%m-%dT%H:%M%z"
LONGEST_INTERVAL = timedelta(minutes=max(INTERVALS_IN_MINUTES))
FIRST_HOUR, LAST_HOUR = b3_calendar.OPENING.hour, b3_calendar.CLOSING.hour
DEFAULT_FIRST_DAY = date(2026, 1, 2)
# How far the clocks of two machines may differ.
LARGEST_CLOCK_SKEW = timedelta(seconds=30)
# How long before the end of its window a run is launched, to be ready when it ends.
LAUNCH_AHEAD = timedelta(minutes=1)
# B3 follows New York: the closing call of stocks ends at 17:00 in São Paulo while New York has
# daylight saving time, and at 18:00 otherwise.
NEW_YORK, CLOSE_IN_NEW_YORK = ZoneInfo("America/New_York"), time(16)


@dataclass(frozen=True, order=True)
class Window:
    """A half-open part `[start, end)` of one session, both ends in UTC."""

    start: datetime
    end: datetime

    @property
    def key(self) -> str:
        """The partition key: the start in São Paulo with its offset, `2026-11-23T10:00-0300`."""
        return key_of(self.start)

    @property
    def day(self) -> date:
        """The session's date in São Paulo."""
        return self.start.astimezone(EXCHANGE_TIMEZONE).date()


class TradingWindows:
    """The windows of every B3 session from `first_day` on.

    Args:
        interval_minutes: length of a window; one of 5, 10, 15, 20, 30 and 60.
        first_day: the first day that has windows; one of the calendar's.
    """

    def __init__(self, interval_minutes: int = 30, first_day: date = DEFAULT_FIRST_DAY) -> None:
        self.interval = timedelta(minutes=interval_minutes)
        self.first_day = first_day
        minutes = "0" if interval_minutes == 60 else f"*/{interval_minutes}"
        grid_cron = f"{minutes} {FIRST_HOUR}-{LAST_HOUR} * * 1-5"
        ticks = ",".join(str(end - 1) for end in range(interval_minutes, 61, interval_minutes))
        self.launch_cron = f"{ticks} {FIRST_HOUR}-{LAST_HOUR - 1} * * 1-5"
        """Ticks `LAUNCH_AHEAD` (one minute) before the end of each window."""
        self._openings = _openings(first_day)
        self._days = list(self._openings)
        self._sessions: dict[date, tuple[Window, ...]] = {}
        # The hour after the last window belongs to the cron, or that window would run until the
        # next morning; its ticks are then excluded.
        self.partitions = dg.TimeWindowPartitionsDefinition(
            start=key_of(midnight(first_day)),
            fmt=KEY_FORMAT,
            cron_schedule=grid_cron,
            timezone=EXCHANGE_TIMEZONE.key,
            end_offset=0,
            exclusions=[
                f"{minutes} {LAST_HOUR} * * 1-5",
                *_exclusions(
                    first_day, f"{minutes} {FIRST_HOUR}-{LAST_HOUR - 1}", self._closed_ticks
                ),
            ],
        )

    def last_ended(self, now: datetime) -> Window | None:
        """The last window whose end is not after `now` (aware); None before the first has ended."""
        day = now.astimezone(EXCHANGE_TIMEZONE).date()
        position = bisect_right(self._days, day)
        for session in reversed(self._days[max(0, position - 2) : position]):
            for window in reversed(self.of_session(session)):
                if window.end <= now:
                    return window
        return None

    def is_live(self, window: Window, now: datetime) -> bool:
        """Whether the current quotes belong to a window at `now` (aware), by any machine's clock.

        They belong to the last window that has ended; to none during the first window of a session,
        when they are no longer those of the session before.
        """
        return window.end - LARGEST_CLOCK_SKEW <= now < self.live_until(window)

    def live_until(self, window: Window) -> datetime:
        """When a window stops being live (UTC).

        That is when the next window of its session ends, or when the next session begins.

        Raises:
            ValueError: the calendar has no later window.
        """
        following = self.next_ending(window.end)
        return following.end if following.start == window.end else following.start

    def next_ending(self, instant: datetime) -> Window:
        """The first window that ends after `instant` (aware).

        Raises:
            ValueError: the calendar has no later window.
        """
        position = bisect_left(self._days, instant.astimezone(EXCHANGE_TIMEZONE).date())
        for day in self._days[position : position + 2]:
            for window in self.of_session(day):
                if window.end > instant:
                    return window
        raise ValueError(f"The bundled B3 calendar ends on {LAST_DAY}; upgrade this package.")

    def is_last(self, window: Window) -> bool:
        """Whether a window (one of `of_session`) is the last of its session."""
        return self.of_session(window.day)[-1] == window

    def from_key(self, key: str) -> Window:
        """The window of a partition key.

        Raises:
            ValueError: the key is not the start of a window.
        """
        start = start_of(key)
        window = Window(start, start + self.interval)
        if window not in self.of_session(window.day):
            raise ValueError(f"{key} is not the start of a window: B3 is closed then.")
        return window

    def of_session(self, day: date) -> tuple[Window, ...]:
        """The windows of the session on `day` (São Paulo); none when B3 is closed that day."""
        if day not in self._sessions:
            opening = self._openings.get(day, time.max)
            ticks = (tick for tick in self._ticks(day) if opening <= tick.time())
            starts = (tick.replace(tzinfo=EXCHANGE_TIMEZONE).astimezone(UTC) for tick in ticks)
            self._sessions[day] = tuple(Window(start, start + self.interval) for start in starts)
        return self._sessions[day]

    def _closed_ticks(self, day: date) -> Iterator[datetime]:
        opening = self._openings.get(day, time.max)
        return (tick for tick in self._ticks(day) if tick.time() < opening)

    def _ticks(self, day: date) -> Iterator[datetime]:
        tick = datetime(day.year, day.month, day.day, FIRST_HOUR)
        while tick.hour < LAST_HOUR:
            yield tick
            tick += self.interval


def sessions_from(first: date) -> dg.TimeWindowPartitionsDefinition:
    """A partition for each session from a day on, `2026-11-23`; the one of today is included."""

    def closed_ticks(day: date) -> Iterator[datetime]:
        if not b3_calendar.is_session(day):
            yield datetime.combine(day, time())

    return dg.TimeWindowPartitionsDefinition(
        start=f"{first}",
        fmt="%Y-%m-%d",
        cron_schedule="0 0 * * 1-5",
        timezone=EXCHANGE_TIMEZONE.key,
        end_offset=1,  # on a day without a session, the next one is
        exclusions=[*_exclusions(first, "0 0", closed_ticks)],
    )


def key_of(start: datetime) -> str:
    """The partition key of a window that starts at an instant (aware)."""
    return start.astimezone(EXCHANGE_TIMEZONE).strftime(KEY_FORMAT)


def start_of(key: str) -> datetime:
    """When the window of a partition key starts, UTC."""
    return datetime.strptime(key, KEY_FORMAT).astimezone(UTC)


def is_key(text: str) -> bool:
    """Whether a text has the form of a partition key."""
    with suppress(ValueError):
        return key_of(start_of(text)) == text
    return False


def in_sao_paulo(instant: datetime) -> str:
    """An instant (aware) for people to read: `Tue 24 Nov 15:30`, in São Paulo."""
    return f"{instant.astimezone(EXCHANGE_TIMEZONE):%a %d %b %H:%M}"


def close_of(day: date) -> datetime:
    """When the closing call of a session's stocks ends (UTC)."""
    return datetime.combine(day, CLOSE_IN_NEW_YORK, NEW_YORK).astimezone(UTC)


def duration(span: timedelta) -> str:
    """A length of time for people to read: `27 s`, `9 min`, `5 h 39 min`, `2 d 4 h`."""
    seconds = round(span.total_seconds())
    if seconds < 180:
        return f"{seconds} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    units = ((hours // 24, "d"), (hours % 24, "h"), (minutes, "min"))
    return " ".join([f"{count} {unit}" for count, unit in units if count][:2])


def midnight(day: date) -> datetime:
    """When a day begins in São Paulo."""
    return datetime.combine(day, time(), EXCHANGE_TIMEZONE)


def _exclusions(
    first: date, times: str, closed_ticks: Callable[[date], Iterable[datetime]]
) -> Iterator[str | datetime]:
    """The ticks on weekdays at which B3 is closed, up to the end of the next year.

    Dagster stores all of them with every check of every partition of a run. To keep them few, a day
    that never has a session (Christmas) is one cron, at these `times`, for all years. The ticks of
    other days, and those before late openings, are naive local times.
    """
    end = date(clock.utc_now().year + 1, 12, 31)
    weekdays = list(itertools.takewhile(end.__ge__, _weekdays(first)))
    sessions = filter(b3_calendar.is_session, weekdays)
    never_open = {(day.month, day.day) for day in weekdays}
    never_open -= {(day.month, day.day) for day in sessions}
    for month, days in itertools.groupby(sorted(never_open), key=lambda each: each[0]):
        yield f"{times} {','.join(str(day) for _, day in days)} {month} *"
    for day in weekdays:
        if (day.month, day.day) not in never_open:
            yield from closed_ticks(day)


def _weekdays(first: date) -> Iterable[date]:
    """The weekdays from one on, to the end of the calendar."""
    days = map(date.fromordinal, range(first.toordinal(), LAST_DAY.toordinal() + 1))
    return (day for day in days if day.weekday() < 5)


def _openings(first_day: date) -> dict[date, time]:
    """When each session from `first_day` on opens, in São Paulo."""
    exceptions = b3_calendar.openings()
    openings = ((day, exceptions.get(day, b3_calendar.OPENING)) for day in _weekdays(first_day))
    return {day: opening for day, opening in openings if opening}
