"""Bars that are not, or may not be, as long as was asked for fill no window."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any

import pytest
from brapi_sandbox.answers import history
from brapi_sandbox.faults import Fault
from brapi_sandbox.sandbox import Sandbox

from market_data_pipeline_tests.conftest import Pipeline
from market_data_pipeline_tests.history.conftest import MONDAY, MONDAYS, gaps_of, observe
from market_data_pipeline_tests.history.truth import filed, traded_in, traded_on, truth

AUGUST, FRIDAY, TUESDAY = date(2026, 8, 17), date(2026, 11, 13), date(2026, 11, 17)
ALL, LAST, NOTHING = range(16), range(15, 16), range(0)
UNTOLD: dict[str, Any] = {"without": ["usedInterval"]}


def told(interval: object) -> dict[str, Any]:
    return {"fields": {"usedInterval": interval}}


def observed(pipeline: Pipeline, plan: str, *faults: Fault) -> tuple[dict[Any, float], set[str]]:
    """What is filed of PETR4 on Monday, and why there is no more."""
    pipeline.sandbox.plan, pipeline.sandbox.faults = plan, faults
    windows = MONDAYS if plan == "pro" else MONDAYS[-1:]
    observation = observe(pipeline, windows, ("PETR4",))
    assert not observation.failures
    return filed(observation.quotes), {*gaps_of(observation, "PETR4").values()}


OF_MINUTES, OF_DAYS = ["5m", "15m", "60m", "1d"], ["5d", "1wk", "1mo"]


@pytest.mark.parametrize(
    ("plan", "answered", "said"),
    [
        ("pro", [*OF_MINUTES, *OF_DAYS], {}),
        ("pro", [*OF_MINUTES, *OF_DAYS], UNTOLD),
        # A single bar, as of a week, is what it is said to be.
        ("pro", OF_MINUTES, told("30m")),
        ("free", ["30m", "60m", *OF_DAYS], {}),
        ("free", ["30m", "60m", *OF_DAYS], UNTOLD),
        ("free", ["30m", "60m", *OF_DAYS], told("1d")),
    ],
)
def test_another_interval_than_was_asked_for(
    pipeline: Pipeline, plan: str, answered: list[str], said: dict[str, Any]
) -> None:
    for interval in answered:
        prices, why = observed(pipeline, plan, Fault(interval=interval, **said))

        assert prices == {}, interval
        assert why <= {"other interval", "no trade"}
        assert why == {"other interval"} or interval in OF_DAYS


def whole(first: date, last: date, interval: str) -> Callable[[Sandbox], list[dict[str, Any]]]:
    """The bars of some days."""
    return lambda sandbox: history(sandbox.market, "PETR4", sandbox.now(), (first, last), interval)


def at(*starts: str) -> Callable[[Sandbox], list[dict[str, Any]]]:
    """The bars of 30 minutes that start then: an instrument that is seldom traded."""
    wanted = {datetime.fromisoformat(f"2026-11-{start}:00-03:00").timestamp() for start in starts}
    bars = whole(FRIDAY, TUESDAY, "30m")
    return lambda sandbox: [bar for bar in bars(sandbox) if bar["date"] in wanted]


@pytest.mark.parametrize(
    ("plan", "answered", "said", "filled"),
    [
        ("pro", at("16T12:30"), {}, [5]),
        ("pro", at("16T10:00"), {}, [0]),
        ("pro", at("16T11:00", "16T15:00"), {}, [2, 10]),
        ("pro", at("13T11:00", "16T12:30", "17T14:00"), {}, [5]),
        ("pro", at("16T11:00"), UNTOLD, NOTHING),
        ("pro", at("16T11:00", "16T11:30"), UNTOLD, NOTHING),
        # These may be daily, whatever is said of them.
        ("pro", at("16T10:00", "17T10:00"), {}, NOTHING),
        ("pro", whole(MONDAY, MONDAY, "30m"), UNTOLD, ALL),
        ("pro", whole(AUGUST, TUESDAY, "30m"), {}, ALL),
        ("pro", whole(AUGUST, TUESDAY, "30m"), UNTOLD, ALL),
        ("pro", whole(MONDAY, MONDAY, "30m"), told(" 30M"), ALL),
        ("pro", whole(MONDAY, MONDAY, "30m"), told("90m"), NOTHING),
        ("pro", whole(MONDAY, MONDAY, "30m"), told(30), NOTHING),
        ("pro", whole(MONDAY, MONDAY, "30m"), {"fields": {"usedRange": None}}, ALL),
        ("free", whole(FRIDAY, TUESDAY, "1d"), UNTOLD, LAST),
        ("free", whole(AUGUST, TUESDAY, "1d"), {}, LAST),
        ("free", whole(AUGUST, TUESDAY, "1d"), UNTOLD, LAST),
        ("free", whole(MONDAY, MONDAY, "1d"), {}, LAST),
        ("free", whole(MONDAY, MONDAY, "1d"), UNTOLD, NOTHING),
    ],
)
def test_what_is_known_of_the_bars_decides(
    pipeline: Pipeline,
    plan: str,
    answered: Callable[[Sandbox], list[dict[str, Any]]],
    said: dict[str, Any],
    filled: Iterable[int],
) -> None:
    traded = traded_in if plan == "pro" else traded_on
    windows = [MONDAYS[number] for number in filled]
    expected = truth(pipeline.sandbox.market, ("PETR4",), windows, traded)
    bars = answered(pipeline.sandbox)
    for order in (bars, bars[::-1]):
        ordered = Fault(fields={"historicalDataPrice": order})

        prices, why = observed(pipeline, plan, ordered, Fault(**said))

        assert prices == expected
        assert why <= ({"no trade"} if windows else {"other interval"})
