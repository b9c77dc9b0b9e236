"""Which windows of a run hold something, and why the others are empty, in words.

Dagster has one green for all: a backfill counts each window without a materialization as failed, so
an empty window is materialized too, and the first entry of its metadata says that it is empty.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import time

import dagster as dg

from market_data_pipeline.assets.metadata import REASONS, missing_in
from market_data_pipeline.brapi.plans import Plan
from market_data_pipeline.observe import Observation
from market_data_pipeline.windows import EXCHANGE_TIMEZONE, Window

# The first entry in the metadata of a window, and the one of its run.
HOLDS, RUN = "holds", "run"
# Stocks close at 17:00 while New York has daylight saving time, and at 17:55 otherwise.
EARLIEST_CLOSE = time(17)


def holds(count: int, of: str, why: str) -> str:
    """`50 quotes`, or that the window is empty and why."""
    return f"{count} {of}" if count else f"EMPTY: {why}"


def tell_filled(
    context: dg.AssetExecutionContext,
    empty: Mapping[Window, str],
    count: int,
    verb: str = "filled",
) -> dict[str, str]:
    """Logs how many windows of a run are filled, and returns it as an entry of the metadata.

    Of a single window that is filled there is nothing to tell.
    """
    if count == 1 and not empty:
        return {}
    said = filled(empty, count, verb)
    context.log.info(said)
    return {RUN: said}


def filled(empty: Mapping[Window, str], count: int, verb: str = "filled") -> str:
    """`13 of 208 windows filled`, and why the others are not.

    Args:
        empty: why a window is empty, for each that is.
        count: how many windows there are.
        verb: what the others are.
    """
    reasons = Counter(empty.values())
    because = ", ".join(
        reason if len(reasons) == 1 else f"{reason} ({windows})"
        for reason, windows in reasons.items()
    )
    return f"{count - len(empty)} of {count} windows {verb}" + (f": {because}" if because else "")


def commonest_gap(window: Window, observation: Observation) -> str:
    """Why most of the tickers have no row in a window."""
    missing = missing_in(window, observation)
    gap: str = max(REASONS, key=lambda reason: len(missing[reason]))
    return gap


def why_empty(window: Window, observation: Observation) -> str:
    """Why a window of `quotes` has no row, in words."""
    return explain(commonest_gap(window, observation), observation.plan)


def explain(gap: str, plan: Plan) -> str:
    """A reason for which tickers have no row, in words."""
    words = {
        "plan": f"the {plan.name} plan has daily bars only",
        "too far back": f"the history of the {plan.name} plan reaches back {plan.longest_range}",
        "no trade": "no instrument was traded",
        "off the grid": "Brapi's bars begin elsewhere than the window",
        "too early": f"its bars are complete {plan.delay_minutes} minutes after its end",
        "failed": "Brapi answered for no ticker",
    }
    return words[gap]


def cannot_be_filled(window: Window, observation: Observation) -> bool:
    """Whether an empty window is no failure: the plan has no bar for it, or the market was closed.

    The windows after the close of stocks have no bar on any plan.
    """
    gap = commonest_gap(window, observation)
    after_the_close = window.start.astimezone(EXCHANGE_TIMEZONE).time() >= EARLIEST_CLOSE
    return gap in {"plan", "too far back"} or (gap == "no trade" and after_the_close)


def in_words(windows: Sequence[Window]) -> str:
    """Windows as the dialog *Materialize* takes them: keys, and `[first...last]` for neighbours.

    Args:
        windows: in the order of time; those of one session that end where the next begins are
            neighbours.
    """
    stretches: list[list[Window]] = []
    for window in windows:
        if stretches and stretches[-1][-1].end == window.start:
            stretches[-1].append(window)
        else:
            stretches.append([window])
    return ", ".join(
        each[0].key if len(each) == 1 else f"[{each[0].key}...{each[-1].key}]" for each in stretches
    )
