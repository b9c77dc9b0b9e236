"""Which bar of the history serves which window.

The price of a window is the close of the bar that starts at its start (of the last of its bars
where Brapi has none as long as the window). A daily bar serves the last window of its session and
no other: the day's close says nothing about the price at noon.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from market_data_pipeline.brapi.answers import Bar, History
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window

Gap = Literal["no trade", "plan", "too far back", "off the grid", "too early"]
"""Why a window has no row although Brapi answered.

`no trade`: the instrument was not traded in it. `plan`: the plan has no bar for it. `too far back`:
the plan's history begins later. `off the grid`: the only bars that begin in it begin elsewhere than
at its start. `too early`: it ended so recently that its bar may be incomplete.
"""


def bars_of_windows(
    history: History, windows: Sequence[Window], bar_interval: str
) -> dict[Window, Bar | Gap]:
    """The bar of each window, or why it has none.

    Args:
        history: the bars of one instrument.
        windows: the windows asked for; with daily bars, each the last of its session.
        bar_interval: `1d`, or the length of a bar in minutes: `30m`.
    """
    traded = [bar for bar in history.bars if bar.close is not None]
    if bar_interval == "1d":
        by_day = {_day(bar): bar for bar in traded}
        return {window: by_day.get(window.day, "no trade") for window in windows}
    size = timedelta(minutes=int(bar_interval.removesuffix("m")))
    by_start = {bar.start: bar for bar in traded}
    starts = list(by_start)
    return {window: _intraday_bar(window, size, by_start, starts) for window in windows}


def _intraday_bar(
    window: Window,
    size: timedelta,
    by_start: Mapping[datetime, Bar],
    starts: Sequence[datetime],
) -> Bar | Gap:
    grid = [window.start + size * number for number in range((window.end - window.start) // size)]
    bars = [by_start[start] for start in grid if start in by_start]
    if not bars:
        first = bisect_left(starts, window.start)
        begins_in_it = first < len(starts) and starts[first] < window.end
        return "off the grid" if begins_in_it else "no trade"
    volumes = [bar.volume for bar in bars if bar.volume is not None]
    return Bar(window.start, bars[-1].close, sum(volumes) if volumes else None)


def _day(bar: Bar) -> date:
    """The session of a daily bar, which starts with the trading or at midnight UTC."""
    if bar.start.time() == time():
        return bar.start.astimezone(UTC).date()
    return bar.start.astimezone(EXCHANGE_TIMEZONE).date()
