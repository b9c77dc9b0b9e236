"""The code location of the pipeline, in the middle of a session, with windows of a minute.

Dagster's clock is the real one. The pipeline's is set back by TEST_SECONDS_BACK, whole minutes, and
so is the time that a tick is for; for windows of a minute, Brapi has bars of a minute at once. The
480 windows of a session are made without asking for the bounds of each, which takes ten seconds.
"""

import dataclasses
import os
from datetime import UTC, date, datetime, time, timedelta

import dagster as dg

from market_data_pipeline import clock, windows
from market_data_pipeline.brapi import plans

BACK = timedelta(seconds=int(os.environ["TEST_SECONDS_BACK"]))

_tick_time = dg.ScheduleEvaluationContext.scheduled_execution_time.fget
dg.ScheduleEvaluationContext.scheduled_execution_time = property(  # type: ignore[assignment]
    lambda self: _tick_time(self) - BACK
)
clock.utc_now = lambda: datetime.now(UTC) - BACK


def _of_session(self: windows.TradingWindows, day: date) -> list[windows.Window]:
    midnight = datetime.combine(day, time(), windows.EXCHANGE_TIMEZONE)
    span = dg.TimeWindow(midnight, midnight + timedelta(days=1))
    keys = self.partitions.get_partition_keys_in_time_window(span)
    starts = [datetime.strptime(key, windows.KEY_FORMAT).astimezone(UTC) for key in keys]
    return [windows.Window(start, start + self.interval) for start in starts]


windows.TradingWindows.of_session = _of_session  # type: ignore[method-assign]
windows.INTERVALS_IN_MINUTES = (1,)  # type: ignore[assignment]
plans.BAR_MINUTES = (1,)  # type: ignore[assignment]
plans.PLANS["pro"] = dataclasses.replace(plans.PLANS["pro"], delay_minutes=0)

from market_data_pipeline.definitions import defs  # noqa: E402, F401
