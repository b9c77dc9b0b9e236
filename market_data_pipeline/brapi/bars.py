"""Which bar of the history serves which window.

The price of a window is the close of the bar that starts at its start (of the last of its bars
where Brapi has none as long as the window). A daily bar serves the last window of its session and
no other: the day's close says nothing about the price at noon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from market_data_pipeline.brapi.answers import Bar, History
from market_data_pipeline.windows import EXCHANGE_TIMEZONE, Window

Gap = Literal["no trade", "plan"]
"""Why a window has no row: nobody traded the paper in it, or the plan has no bar for it."""


def bars_of_windows(
    history: History, windows: Sequence[Window], bar_interval: str, last_windows: frozenset[Window]
) -> dict[Window, Bar | Gap]:
    """The bar of each window, or why it has none.

    Args:
        history: the bars of one paper.
        windows: the windows asked for.
        bar_interval: `1d`, or the length of a bar in minutes: `30m`.
        last_windows: those windows that are the last of their session.
    """
    if bar_interval != "1d":
        size = timedelta(minutes=int(bar_interval.removesuffix("m")))
        by_start = {bar.start: bar for bar in history.bars}
        return {window: _intraday_bar(window, size, by_start) for window in windows}
    by_day = {_day(bar): bar for bar in history.bars}
    return {
        window: _traded(by_day.get(window.day)) if window in last_windows else "plan"
        for window in windows
    }


def _intraday_bar(window: Window, size: timedelta, by_start: Mapping[datetime, Bar]) -> Bar | Gap:
    starts = [window.start + size * number for number in range((window.end - window.start) // size)]
    traded = [bar for start in starts if isinstance(bar := _traded(by_start.get(start)), Bar)]
    if not traded:
        return "no trade"
    volumes = [bar.volume for bar in traded if bar.volume is not None]
    return Bar(window.start, traded[-1].close, sum(volumes) if volumes else None)


def _traded(bar: Bar | None) -> Bar | Gap:
    return bar if bar is not None and bar.close is not None else "no trade"


def _day(bar: Bar) -> date:
    """The session of a daily bar, which starts with the trading or at midnight UTC."""
    if bar.start.time() == time():
        return bar.start.astimezone(UTC).date()
    return bar.start.astimezone(EXCHANGE_TIMEZONE).date()
