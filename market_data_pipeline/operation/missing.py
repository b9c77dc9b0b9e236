"""Which windows of the last sessions an asset lacks, why, and what fills them.

Dagster shows a window that was never requested, one that failed and one that no plan can fill in
the same grey, and an empty one in the same green as any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Literal, get_args

import dagster as dg

from market_data_pipeline.brapi.observe import unserved
from market_data_pipeline.brapi.plans import Plan
from market_data_pipeline.market.b3_calendar import sessions_back
from market_data_pipeline.market.windows import Window, midnight, trading_windows
from market_data_pipeline.publication.publications import PUBLISHED
from market_data_pipeline.quotes.gaps import explain
from market_data_pipeline.runs.asset_keys import PUBLICATION, QUOTES
from market_data_pipeline.runs.filling import in_words
from market_data_pipeline.runs.run_history import began, materializations, unsuccessful_runs
from market_data_pipeline.runs.tables import table

WINDOWS = trading_windows()
SESSIONS = 5
COUNTS = (PUBLISHED, "dagster/partition_row_count")

State = Literal["filled", "empty", "missing", "before the first run"]


def account(
    instance: dg.DagsterInstance, asset: dg.AssetKey, due: Window, now: datetime, plan: Plan
) -> tuple[str, dict[str, Any]]:
    """A sentence on the windows of the last sessions, and the metadata that names them.

    Args:
        instance: where materializations are recorded.
        asset: one of the three assets.
        due: the last window that is due.
        now: the current instant (aware).
        plan: says which windows the price history can fill.

    Returns:
        The sentence; and `windows_not_filled`, with the table `not_filled` if there are any.
    """
    first = sessions_back(due.day, SESSIONS - 1)
    windows = _windows(first, due)
    states = _states(instance, asset, windows)
    failed = unsuccessful_runs(instance, [w for w in windows if states[w] == "missing"], asset)
    quotes = states if asset == QUOTES else _states(instance, QUOTES, windows)
    rows: dict[tuple[str, str], list[Window]] = {}
    for window, state in states.items():
        if state == "filled":
            continue
        why: str = state
        if state == "missing":
            run = failed.get(window)
            why = (
                f"missing: run {run[:8]} failed"
                if run
                else "missing: no run, or skipped to save quota"
            )
        to_do = _what_fills(asset, window, state, quotes[window] == "filled", now, plan)
        rows.setdefault((why, to_do), []).append(window)
    counts = Counter(states.values())
    numbers = ", ".join(f"{counts[each]} {each}" for each in get_args(State) if counts[each])
    named = [
        {"windows": in_words(each), "count": len(each), "state": why, "what fills them": to_do}
        for (why, to_do), each in rows.items()
    ]
    summary = f"The last {SESSIONS} sessions had {len(windows)} windows: {numbers}."
    return summary, {
        "windows_not_filled": len(windows) - counts["filled"],
        **({"not_filled": table(named)} if named else {}),
    }


def _windows(first: date, last: Window) -> list[Window]:
    windows = [WINDOWS.next_ending(midnight(first))]
    while windows[-1] < last:
        windows.append(WINDOWS.after(windows[-1]))
    return windows


def _states(
    instance: dg.DagsterInstance, asset: dg.AssetKey, windows: Sequence[Window]
) -> dict[Window, State]:
    found, start = materializations(instance, asset, windows), began(instance, asset)
    states: dict[Window, State] = {}
    for window, events in found.items():
        if any(map(_holds_something, events)):
            states[window] = "filled"
        elif start is None or WINDOWS.live_until(window) <= start:
            states[window] = "before the first run"
        else:
            states[window] = "empty" if events else "missing"
    return states


def _holds_something(event: dg.AssetMaterialization) -> bool:
    """Whether it counts anything. One that was reported by hand has no counts and is trusted."""
    counted = [event.metadata[name].value for name in COUNTS if name in event.metadata]
    return not counted or bool(counted[0])


def _what_fills(
    asset: dg.AssetKey, window: Window, state: State, stored: bool, now: datetime, plan: Plan
) -> str:
    """What to launch for a window in a state, or why nothing can fill it.

    `stored` says whether `quotes` has rows for it.
    """
    live = WINDOWS.is_live(window, now)
    if asset != QUOTES and stored:
        alone = f"materialize `{asset.to_user_string()}`"
        if asset != PUBLICATION:
            return alone
        return f"{alone} now" if live else f"{alone} with `publish_history: true`, if wanted"
    gap = None if live else unserved(window, plan, WINDOWS, now)
    if gap == "too early":
        return f"materialize all assets: {explain(gap, plan)}"
    if gap:
        return f"nothing: {explain(gap, plan)}"
    if state == "empty":
        return "materialize all assets; it stays empty if there was no trade"
    return "materialize all assets"
