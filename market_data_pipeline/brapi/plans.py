"""What each plan of Brapi allows; a request that the plan forbids is not sent.

A rejected request counts against the quota like any other. The figures of the free plan are
measured; those of the others are assumed, and settings override them.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from market_data_pipeline.brapi.errors import RunError

# Every range that reaches back a fixed time from today, the shortest first.
RANGES = ("1d", "5d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "max")
BAR_MINUTES = (60, 30, 15, 5)
LONGEST_SESSION_MINUTES = 10 * 60


@dataclass(frozen=True)
class Plan:
    """What a plan allows: tickers in one request, the history, the length of its bars.

    `delay_minutes` is how old a quote may be, `longest_range` how far the history reaches back from
    today.
    """

    name: str
    tickers_per_request: int
    delay_minutes: int
    intraday: bool
    longest_range: str

    def bar_interval(self, window_minutes: int) -> str:
        """The `interval` of the bars that windows of that length are made of."""
        if not self.intraday:
            return "1d"
        return f"{next(size for size in BAR_MINUTES if window_minutes % size == 0)}m"

    def first_day(self, today: date) -> date:
        """The first day (São Paulo) that the price history reaches back to."""
        return _reaches_back_to(self.longest_range, today)

    def history_query(
        self, first: date, last: date, today: date, window_minutes: int
    ) -> tuple[dict[str, str], int]:
        """The parameters that cover the days `first` to `last`, and how many bars may come at most.

        Dates where the plan has intraday bars, else the shortest range that reaches back to
        `first`.

        Raises:
            RunError: `first` is further back than the plan reaches.
        """
        if first < self.first_day(today):
            raise RunError(
                f"The plan '{self.name}' reaches back {self.longest_range}, to "
                f"{self.first_day(today)}; {first} is too far back. No request was sent: choose "
                "later windows, or set BRAPI_PLAN (or BRAPI_LONGEST_RANGE) to what your token "
                "allows."
            )
        query = {"interval": self.bar_interval(window_minutes)}
        if not self.intraday:
            query["range"] = next(name for name in RANGES if _reaches_back_to(name, today) <= first)
            return query, (today - first).days + 1
        query["startDate"] = first.isoformat()
        if last < today:
            # Whether endDate is part of the answer is not documented: ask for one day more.
            query["endDate"] = (last + timedelta(days=1)).isoformat()
        minutes = int(query["interval"].removesuffix("m"))
        return query, ((last - first).days + 2) * LONGEST_SESSION_MINUTES // minutes


PLANS = {
    plan.name: plan
    for plan in (
        Plan("free", 1, 30, False, "3mo"),
        Plan("startup", 10, 15, True, "1y"),
        Plan("pro", 20, 5, True, "max"),
    )
}


def batches(tickers: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """The tickers in their order, `size` to a request."""
    return [tuple(tickers[start : start + size]) for start in range(0, len(tickers), size)]


def _reaches_back_to(name: str, today: date) -> date:
    if name == "max":
        return date.min
    count, unit = int(name.rstrip("dmoy")), name.lstrip("0123456789")
    if unit == "d":
        return today - timedelta(days=count - 1)  # today is one of them
    months = today.year * 12 + today.month - 1 - count * (12 if unit == "y" else 1)
    year, month = divmod(months, 12)
    return date(year, month + 1, min(today.day, calendar.monthrange(year, month + 1)[1]))
