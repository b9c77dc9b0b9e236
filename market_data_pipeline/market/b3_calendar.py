"""The days on which B3 is closed, or opens late: `b3_calendar.csv`, made from exchange_calendars.

    make calendar    # makes the file anew

It is a file because each run is a new process, and importing the library takes longer than a
request to Brapi.
"""

from __future__ import annotations

import csv
from datetime import date, time, timedelta
from functools import cache
from importlib import resources

from market_data_pipeline.settings import FIRST_DAY

OPENING, CLOSING = time(10), time(18)


@cache
def openings() -> dict[date, time | None]:
    """The weekdays on which B3 is closed (None), or opens late (the time, in São Paulo).

    Between `FIRST_DAY` and `LAST_DAY`, every other weekday has a session, from `OPENING` to
    `CLOSING`.
    """
    text = resources.files(__package__).joinpath("b3_calendar.csv").read_text("utf-8")
    return {
        date.fromisoformat(row["day"]): time.fromisoformat(row["opens"]) if row["opens"] else None
        for row in csv.DictReader(text.splitlines())
    }


def is_session(day: date) -> bool:
    """Whether B3 has a session on a day of the calendar."""
    return day.weekday() < 5 and openings().get(day, OPENING) is not None


def sessions_back(day: date, count: int) -> date:
    """The day `count` sessions before `day`, or the first day of the calendar."""
    while count and day > FIRST_DAY:
        day -= timedelta(days=1)
        count -= is_session(day)
    return day
