"""Which tickers have no row in a window of `quotes`, and why."""

from collections.abc import Sequence
from datetime import time
from typing import get_args

from market_data_pipeline.brapi.bars import Gap
from market_data_pipeline.brapi.observe import Observation
from market_data_pipeline.brapi.plans import Plan
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window

# Why a ticker has no row in a window.
REASONS = (*get_args(Gap), "failed")
# Stocks close at 17:00 while New York has daylight saving time, and at 17:55 otherwise.
EARLIEST_CLOSE = time(17)


def failures_of(observations: Sequence[Observation]) -> dict[str, str]:
    """The tickers that Brapi did not answer for, and why."""
    return {ticker: why for each in observations for ticker, why in each.failures.items()}


def missing_in(window: Window, observation: Observation) -> dict[str, list[str]]:
    """The tickers without a row in one of the observed windows, by the reason why."""
    gaps = observation.gaps.get(window, {})
    missing = {why: [each for each in gaps if gaps[each] == why] for why in REASONS}
    missing["failed"] = [ticker for ticker in observation.failures if ticker not in gaps]
    return missing


def why_empty(window: Window, observation: Observation) -> str:
    """The most common reason for a window to have no row, in words."""
    return explain(_commonest(window, observation), observation.plan)


def explain(gap: str, plan: Plan) -> str:
    """In words, a reason for tickers to have no row."""
    words = {
        "plan": f"the {plan.name} plan has daily bars only",
        "too far back": f"the history of the {plan.name} plan reaches back {plan.longest_range}",
        "no trade": "there was no trade",
        "off the grid": "Brapi's bars do not start where the window starts",
        "too early": f"its bars are not complete until {plan.delay_minutes} minutes after its end",
        "other interval": "Brapi's bars are not known to be as long as was asked for",
        "failed": "Brapi gave no usable answer",
    }
    return words[gap]


def cannot_be_filled(window: Window, observation: Observation) -> bool:
    """Whether it is no failure that a window is empty: the plan has no bar, or stocks had closed.

    No plan has bars for the windows after the close.
    """
    gap = _commonest(window, observation)
    after_the_close = window.start.astimezone(EXCHANGE_TIMEZONE).time() >= EARLIEST_CLOSE
    return gap in {"plan", "too far back"} or (gap == "no trade" and after_the_close)


def _commonest(window: Window, observation: Observation) -> str:
    missing = missing_in(window, observation)
    return max(missing, key=lambda reason: len(missing[reason]))
