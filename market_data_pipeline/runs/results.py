"""What the UI shows of a run: results of checks, metadata and tables.

Dagster shows all windows in the same green. A backfill counts each window without a materialization
as failed, so an empty window is materialized too; the first entry of its metadata says so.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from market_data_pipeline.market.quote import COLUMNS
from market_data_pipeline.market.windows import Window

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
# Keys of a check's metadata: the last window that it is about, and the instruments that it names.
WINDOW, NAMED = "window", "named"
# Keys of the metadata: what the window contains (the first entry), and what its run did.
CONTENTS, RUN = "contents", "run"
# Dagster's name for the rows of a partition.
ROW_COUNT = "dagster/partition_row_count"


def verdict(
    spec: dg.AssetCheckSpec,
    windows: Sequence[Window],
    fault: str,
    well: str,
    severity: dg.AssetCheckSeverity,
    named: Iterable[str] | None = None,
    **metadata: Any,
) -> dg.AssetCheckResult:
    """The result of a check: it passes if there is no `fault`, and then says that all is `well`.

    Its metadata has what the alerts look at: the last of the windows that it is about, if there is
    one, and the instruments that it names.
    """
    if named is not None:
        metadata[NAMED] = sorted(named)
    if windows:
        metadata[WINDOW] = windows[-1].key
    return dg.AssetCheckResult(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=not fault,
        severity=severity,
        description=fault or well,
        metadata=metadata,
    )


def some(texts: Sequence[str], between: str = ", ", most: int = 10) -> str:
    """The first texts, `most` of them, and how many more there are."""
    shown = between.join(texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most} more"


def contents(count: int, of: str, why: str) -> dict[str, str]:
    """What a window contains, as metadata: `50 quotes`, or `EMPTY:` and the reason."""
    return {CONTENTS: f"{count} {of}" if count else f"EMPTY: {why}"}


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


def column_schema(columns: Mapping[str, tuple[str, str]] = COLUMNS) -> dg.TableSchema:
    """Columns by type and description; by default those of a quote."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, kind, description=description)
            for name, (kind, description) in columns.items()
        ]
    )


def table_if_any(name: str, records: list[dict[str, Any]]) -> dict[str, dg.TableMetadataValue]:
    """Metadata with a table of that name, unless it would be empty."""
    return {name: table(records)} if records else {}


def table(records: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """A table of the UI; every record has the same keys."""
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records])
