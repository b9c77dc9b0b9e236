"""Why a window of `quotes` has no row, in words."""

from datetime import time

from market_data_pipeline.brapi.observe import Observation
from market_data_pipeline.brapi.plans import Plan
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window
from market_data_pipeline.quotes.metadata import REASONS, missing_in

# Stocks close at 17:00 while New York has daylight saving time, and at 17:55 otherwise.
EARLIEST_CLOSE = time(17)


def commonest_gap(window: Window, observation: Observation) -> str:
    """The most common reason why a ticker has no row in a window."""
    missing = missing_in(window, observation)
    gap: str = max(REASONS, key=lambda reason: len(missing[reason]))
    return gap


def why_empty(window: Window, observation: Observation) -> str:
    """Why a window of `quotes` has no row, in words."""
    return explain(commonest_gap(window, observation), observation.plan)


def explain(gap: str, plan: Plan) -> str:
    """In words, a reason for tickers to have no row."""
    words = {
        "plan": f"the {plan.name} plan has daily bars only",
        "too far back": f"the history of the {plan.name} plan reaches back {plan.longest_range}",
        "no trade": "no instrument was traded",
        "off the grid": "Brapi's bars do not start where the window starts",
        "too early": f"its bars are not complete until {plan.delay_minutes} minutes after its end",
        "failed": "Brapi did not answer for any ticker",
    }
    return words[gap]


def cannot_be_filled(window: Window, observation: Observation) -> bool:
    """Whether it is no failure that a window is empty: the plan has no bar, or stocks had closed.

    No plan has bars for the windows after the close.
    """
    gap = commonest_gap(window, observation)
    after_the_close = window.start.astimezone(EXCHANGE_TIMEZONE).time() >= EARLIEST_CLOSE
    return gap in {"plan", "too far back"} or (gap == "no trade" and after_the_close)
