"""Which windows of a run hold something, and why the others are empty, in words.

Dagster shows them all in the same green. A backfill counts each window without a materialization as
failed, so an empty window is materialized too; the first entry of its metadata says so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import time

import dagster as dg

from market_data_pipeline.assets.metadata import REASONS, missing_in
from market_data_pipeline.brapi.plans import Plan
from market_data_pipeline.observe import Observation
from market_data_pipeline.windows import EXCHANGE_TIMEZONE, Window

# Keys of the metadata: what the window holds (the first entry), and what its run did.
HOLDS, RUN = "holds", "run"
# Stocks close at 17:00 while New York has daylight saving time, and at 17:55 otherwise.
EARLIEST_CLOSE = time(17)


def holds(count: int, of: str, why: str) -> str:
    """`50 quotes`, or `EMPTY:` and the reason."""
    return f"{count} {of}" if count else f"EMPTY: {why}"


def tell_filled(
    context: dg.AssetExecutionContext,
    empty: Mapping[Window, str],
    count: int,
    verb: str = "filled",
) -> dict[str, str]:
    """Logs how many windows a run filled, and returns the same sentence as a metadata entry.

    A run of a single window that is filled logs nothing and returns no entry.

    Args:
        context: of the step; its log is used.
        empty: the reason for each window that is empty.
        count: how many windows the run had.
        verb: what happened to the windows that are not empty.
    """
    if count == 1 and not empty:
        return {}
    said = filled(empty, count, verb)
    context.log.info(said)
    return {RUN: said}


def filled(empty: Mapping[Window, str], count: int, verb: str = "filled") -> str:
    """`13 of 208 windows filled`, and why the others are not.

    Args:
        empty: the reason for each window that is empty.
        count: how many windows there are.
        verb: what happened to the windows that are not empty.
    """
    reasons = Counter(empty.values())
    because = ", ".join(
        reason if len(reasons) == 1 else f"{reason} ({windows})"
        for reason, windows in reasons.items()
    )
    return f"{count - len(empty)} of {count} windows {verb}" + (f": {because}" if because else "")


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


def in_words(windows: Sequence[Window]) -> str:
    """Windows in the form that the *Materialize* dialog accepts: keys, or `[first...last]`.

    Args:
        windows: in the order of time. Windows that follow each other without a gap form a range.
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
