"""Makes `b3_calendar.csv` anew: `make calendar`."""

import csv
from collections.abc import Iterator
from datetime import date, time, timedelta
from pathlib import Path

import exchange_calendars

from market_data_pipeline.market import b3_calendar
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE
from market_data_pipeline.settings import FIRST_DAY, LAST_DAY

FILE = Path(b3_calendar.__file__).with_name("b3_calendar.csv")


def exceptions() -> Iterator[tuple[date, time | None]]:
    """What `b3_calendar.openings` is to say, from the calendar `BVMF` of exchange_calendars."""
    calendar = exchange_calendars.get_calendar("BVMF", start=str(FIRST_DAY), end=str(LAST_DAY))
    opens = calendar.schedule["open"].dt.tz_convert(EXCHANGE_TIMEZONE.key)
    hours = {each.date(): each.time() for each in opens}
    days = (FIRST_DAY + timedelta(days=n) for n in range((LAST_DAY - FIRST_DAY).days + 1))
    for day in days:
        opening = hours.get(day)
        if day.weekday() < 5 and opening != b3_calendar.OPENING:
            yield day, opening


if __name__ == "__main__":
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["day", "opens"])
        writer.writerows([day, f"{opens:%H:%M}" if opens else ""] for day, opens in exceptions())
