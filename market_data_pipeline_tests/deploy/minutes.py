"""The code location of the pipeline, in the middle of a session, with windows of few minutes.

Dagster's clock is the real one, at any hour and on any day, so the schedule ticks round the clock.
The pipeline's is set back by TEST_SECONDS_BACK, whole windows, and so is the time that a tick is
for; Brapi has bars of SYNC_INTERVAL_MINUTES at once. There are no holidays: Dagster stores each
tick of them with each event that it plans, and of these windows there would be many more ticks than
of those of half an hour.
"""

import dataclasses
import os
from datetime import UTC, datetime, timedelta

import dagster as dg

from market_data_pipeline.brapi import plans
from market_data_pipeline.market import b3_calendar, clock, windows

BACK = timedelta(seconds=int(os.environ["TEST_SECONDS_BACK"]))

_tick_time = dg.ScheduleEvaluationContext.scheduled_execution_time.fget
dg.ScheduleEvaluationContext.scheduled_execution_time = property(  # type: ignore[assignment]
    lambda self: _tick_time(self) - BACK
)
clock.utc_now = lambda: datetime.now(UTC) - BACK
b3_calendar.openings = dict  # type: ignore[assignment]
MINUTES = int(os.environ["SYNC_INTERVAL_MINUTES"])
windows.INTERVALS_IN_MINUTES = (MINUTES,)  # type: ignore[assignment]
plans.BAR_MINUTES = (MINUTES,)  # type: ignore[assignment]
plans.PLANS["pro"] = dataclasses.replace(plans.PLANS["pro"], delay_minutes=0)

from market_data_pipeline.operation.automation import every_window  # noqa: E402

every_window._cron_schedule = f"*/{MINUTES} * * * *"

from market_data_pipeline.definitions import defs  # noqa: E402, F401
