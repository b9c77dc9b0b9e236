"""Which bar of the history serves which window.

The price of a window is the close of the bar that starts at its start (of the last of its bars
where Brapi has none as long as the window). A daily bar serves the last window of its session and
no other: the day's close says nothing about the price at noon.

Bars of another length than was asked for would give prices of a wrong time. So the length that
Brapi states has to agree with the times at which the bars start. If it states none, these times
have to prove the length.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from math import gcd
from typing import Literal

from market_data_pipeline.brapi.answers import Bar, History
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, FIRST_HOUR, LAST_HOUR, Window

# Why a window has no row although Brapi answered. It is `other interval`, too, if two bars
# contradict.
Gap = Literal["no trade", "plan", "too far back", "off the grid", "too early", "other interval"]
MINUTES_OF_A_DAY = 24 * 60
# Starts may fit a longer interval by chance. If the chance is below one in this, the bars are
# longer.
CHANCE = 16
# This many starts prove a length that Brapi does not state.
PROOF = 4
# Sessions are closer together, weekly bars are not.
DAYS_OF_A_LONGER_BAR = 5


def bars_of_windows(
    history: History, windows: Sequence[Window], bar_interval: str
) -> dict[Window, Bar | Gap]:
    """The bar of each window (with daily bars, the last of its session), or why it has none."""
    stated = "60m" if history.interval == "1h" else history.interval
    traded = [bar for bar in history.bars if bar.close is not None]
    if traded and stated in ("", bar_interval):
        if bar_interval == "1d":
            return _daily_bars(traded, windows, bool(stated))
        minutes = int(bar_interval.removesuffix("m"))
        if _have_length([bar.start for bar in history.bars], minutes, bool(stated)):
            return _intraday_bars(traded, windows, timedelta(minutes=minutes))
    return dict.fromkeys(windows, "other interval" if traded else "no trade")


def _daily_bars(
    bars: Sequence[Bar], windows: Sequence[Window], stated: bool
) -> dict[Window, Bar | Gap]:
    by_day: dict[date, list[Bar]] = {}
    for bar in bars:
        by_day.setdefault(_day(bar), []).append(bar)
    steps = [(later - day).days for day, later in pairwise(sorted(by_day))]
    longer = sum(step >= DAYS_OF_A_LONGER_BAR for step in steps)
    if longer > len(steps) / 2 or not (stated or steps):
        return dict.fromkeys(windows, "other interval")
    served: dict[Window, Bar | Gap] = {}
    for window in windows:
        of_day = by_day.get(window.day, [])
        if len({bar.close for bar in of_day}) > 1:
            served[window] = "other interval"
        else:
            served[window] = of_day[-1] if of_day else "no trade"
    return served


def _have_length(starts: Sequence[datetime], minutes: int, stated: bool) -> bool:
    """Whether bars with these starts count as bars of that many minutes."""
    fitting = [start for start in starts if _fits(start.astimezone(EXCHANGE_TIMEZONE), minutes)]
    if len(fitting) <= len(starts) / 2:
        return False
    steps = [(later - start) // timedelta(minutes=1) for start, later in pairwise(fitting)]
    times_longer = gcd(MINUTES_OF_A_DAY, *steps) // minutes
    if stated:
        return int(times_longer ** min(len(steps), CHANCE)) < CHANCE
    return len(fitting) >= PROOF and times_longer == 1 and steps.count(minutes) > len(steps) / 2


def _fits(start: datetime, minutes: int) -> bool:
    on_the_grid = start.minute % minutes == start.second == start.microsecond == 0
    return on_the_grid and FIRST_HOUR <= start.hour < LAST_HOUR


def _intraday_bars(
    bars: Sequence[Bar], windows: Sequence[Window], size: timedelta
) -> dict[Window, Bar | Gap]:
    by_start = {bar.start: bar for bar in bars}
    twice = {bar.start for bar in bars if bar.close != by_start[bar.start].close}
    starts = list(by_start)
    served: dict[Window, Bar | Gap] = {}
    for window in windows:
        number = (window.end - window.start) // size
        grid = [window.start + size * each for each in range(number)]
        of_window = [by_start[start] for start in grid if start in by_start]
        if not of_window:
            begins_in_it = bisect_left(starts, window.start) < bisect_left(starts, window.end)
            served[window] = "off the grid" if begins_in_it else "no trade"
        elif of_window[-1].start in twice:
            served[window] = "other interval"
        else:
            volumes = [bar.volume for bar in of_window if bar.volume is not None]
            close = of_window[-1].close
            served[window] = Bar(window.start, close, sum(volumes) if volumes else None)
    return served


def _day(bar: Bar) -> date:
    """The session of a daily bar, which starts with the trading or at midnight UTC."""
    if bar.start.time() == time():
        return bar.start.astimezone(UTC).date()
    return bar.start.astimezone(EXCHANGE_TIMEZONE).date()
