"""The runs of a window, and what of it is materialized, by the records of the instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from market_data_pipeline.market.windows import LARGEST_CLOCK_SKEW, Window
from market_data_pipeline.runs.dagster_internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_TAG,
)

_MOST_RECORDS = 10_000  # Dagster returns no more
# A window is usually materialized once or twice, and once more by each repeated backfill.
_WINDOWS_A_QUERY = 400
_MOST_RUNS = 200


def runs_of(instance: dg.DagsterInstance, window: Window, asset: dg.AssetKey) -> list[dg.RunRecord]:
    """The runs that were to materialize a window of an asset, alone or in a range; newest first.

    Of the runs of ranges, only those among the newest 200 of the instance are found.
    """
    alone = dg.RunsFilter(tags={PARTITION_TAG: window.key})
    records = {
        record.storage_id: record
        for wanted in (alone, None)
        for record in instance.get_run_records(wanted, limit=_MOST_RUNS)
    }
    return [
        records[number]
        for number in sorted(records, reverse=True)
        if _covers(records[number].dagster_run, window)
        and _was_to_materialize(instance, records[number], asset)
    ]


def _was_to_materialize(
    instance: dg.DagsterInstance, record: dg.RunRecord, asset: dg.AssetKey
) -> bool:
    planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    events = instance.get_records_for_run(record.dagster_run.run_id, of_type=planned).records
    return any(event.asset_key == asset for event in events)


def _covers(run: dg.DagsterRun, window: Window) -> bool:
    """Whether the key of a window is among the partitions of a run: their order is that of time."""
    ends = ends_of(run)
    return bool(ends) and ends[0] <= window.key <= ends[-1]


def partitions_in_words(run: dg.DagsterRun) -> str:
    """` for 2026-11-23T10:00-0300`, or the ends of a range; empty if it has none."""
    ends = ends_of(run)
    return f" for {' to '.join(ends)}" if ends else ""


def ends_of(run: dg.DagsterRun) -> list[str]:
    """The partition of a run, or the first and the last one."""
    if partition := run.tags.get(PARTITION_TAG):
        return [partition]
    range_tags = (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
    return [*dict.fromkeys(run.tags[tag] for tag in range_tags if tag in run.tags)]


def value_of(record: dg.EventLogRecord, name: str) -> Any:
    """A value of the metadata of a materialization; None if it is not there."""
    event = record.asset_materialization
    return event.metadata[name].value if event and name in event.metadata else None


def materializations(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    windows: Sequence[Window],
) -> dict[Window, list[dg.EventLogRecord]]:
    """The materializations of an asset for some windows, newest first; a window may have none.

    A materialization from before the end of its window belongs to a shorter window with the same
    start, from before SYNC_INTERVAL_MINUTES was changed: it is left out. Of up to 400 windows at a
    time, the newest 10,000 are read.
    """
    found: dict[Window, list[dg.EventLogRecord]] = {window: [] for window in windows}
    by_key = {window.key: window for window in windows}
    keys = list(by_key)
    for start in range(0, len(keys), _WINDOWS_A_QUERY):
        some = keys[start : start + _WINDOWS_A_QUERY]
        wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=some)
        records = instance.fetch_materializations(wanted, limit=_MOST_RECORDS).records
        for record in records:
            window = by_key[record.partition_key or ""]
            if record.timestamp >= (window.end - LARGEST_CLOCK_SKEW).timestamp():
                found[window].append(record)
    return found
