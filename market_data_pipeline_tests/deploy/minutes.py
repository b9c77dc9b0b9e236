"""The code location of the pipeline, in the middle of a session, with windows of few minutes.

Dagster's daemon has the real clock, at any hour and on any day, so the schedule ticks round the
clock. The pipeline's is set back (`set_back.py`), and so are the time that a tick is for and the
windows that Dagster knows; Brapi has bars of SYNC_INTERVAL_MINUTES at once. There are no holidays:
Dagster stores each tick of them with each event that it plans, and of these windows there would be
many more ticks than of those of half an hour. Where windows are shorter than what the daemon waits
for, it waits for less.
"""

import dataclasses
import os
from datetime import UTC, datetime, timedelta

import dagster as dg

from market_data_pipeline import settings
from market_data_pipeline.brapi import plans
from market_data_pipeline.market import b3_calendar, clock, windows

BACK = timedelta(seconds=int(os.environ["TEST_SECONDS_BACK"]))
AHEAD = timedelta(seconds=int(os.environ["TEST_SECONDS_AHEAD"]))
MINUTES = int(os.environ["SYNC_INTERVAL_MINUTES"])

_tick_time = vars(dg.ScheduleEvaluationContext)["scheduled_execution_time"].fget
dg.ScheduleEvaluationContext.scheduled_execution_time = property(  # type: ignore[assignment]
    lambda self: _tick_time(self) - BACK
)
_now = dg.TimeWindowPartitionsDefinition._get_current_timestamp
dg.TimeWindowPartitionsDefinition._get_current_timestamp = (  # type: ignore[method-assign]
    lambda self: _now(self) - BACK.total_seconds()
)
clock.utc_now = lambda: datetime.now(UTC) - BACK
b3_calendar.openings = dict  # type: ignore[assignment]
settings.INTERVALS_IN_MINUTES = (MINUTES,)  # type: ignore[assignment]
windows.LAUNCH_AHEAD = AHEAD
plans.BAR_MINUTES = (MINUTES,)  # type: ignore[assignment]
plans.PLANS["pro"] = dataclasses.replace(plans.PLANS["pro"], delay_minutes=0)

from market_data_pipeline.operation import launching  # noqa: E402

launching.every_window._cron_schedule = (
    "* * * * *" if MINUTES == 1 else f"{MINUTES - 1}-59/{MINUTES} * * * *"
)
if MINUTES == 1:
    launching.TIME_TO_LAUNCH = timedelta(seconds=2)
    launching.DELAYS = (5, 5, 10, *[20] * 16)
    launching.launch_missing._min_interval = 5

from market_data_pipeline.definitions import defs  # noqa: E402, F401
