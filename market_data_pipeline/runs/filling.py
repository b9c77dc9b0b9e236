"""Which windows of a run hold something, and why the others are empty, in words.

Dagster shows them all in the same green. A backfill counts each window without a materialization as
failed, so an empty window is materialized too; the first entry of its metadata says so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import dagster as dg

from market_data_pipeline.market.windows import Window

# Keys of the metadata: what the window holds (the first entry), and what its run did.
HOLDS, RUN = "holds", "run"


def holds(count: int, of: str, why: str) -> str:
    """`50 quotes`, or `EMPTY:` and the reason."""
    return f"{count} {of}" if count else f"EMPTY: {why}"


def tell_filled(
    context: dg.AssetExecutionContext,
    empty: Mapping[Window, str],
    count: int,
    verb: str = "filled",
) -> dict[str, str]:
    """Logs the text of `filled` for a run, and returns it as metadata.

    For a single window that is filled, it logs and returns nothing.
    """
    if count == 1 and not empty:
        return {}
    said = filled(empty, count, verb)
    context.log.info(said)
    return {RUN: said}


def filled(empty: Mapping[Window, str], count: int, verb: str = "filled") -> str:
    """`13 of 208 windows filled`, and the reasons why the others are `empty`."""
    reasons = Counter(empty.values())
    because = ", ".join(
        reason if len(reasons) == 1 else f"{reason} ({windows})"
        for reason, windows in reasons.items()
    )
    return f"{count - len(empty)} of {count} windows {verb}" + (f": {because}" if because else "")


def as_ranges(windows: Sequence[Window]) -> str:
    """Windows, in the order of time, as the *Materialize* dialog takes them: keys and ranges.

    A range, `[first...last]`, is of windows that follow each other without a gap.
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
