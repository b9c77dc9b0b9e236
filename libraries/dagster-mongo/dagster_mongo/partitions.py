"""Which documents belong to the partitions of a run, and which rows to which partition."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from dagster_mongo.errors import MongoFrameError, MongoSettingsError
from dagster_mongo.keys import as_utc

__all__ = ["Slice", "slice_of"]

Window = tuple[datetime, datetime]


@dataclass(frozen=True)
class Slice:
    """The partitions of one run.

    Attributes:
        field: The field of the documents that tells the partition.
        keys: The partitions, in their order.
        windows: Of time partitions, half-open and in UTC. Others have none, and the field
            holds the key itself.
    """

    field: str
    keys: Sequence[str]
    windows: Mapping[str, Window] | None

    def query(self) -> dict[str, Any]:
        """What matches the documents of these partitions and of no other."""
        if self.windows is None:
            values = sorted(self.keys)
            return {self.field: values[0] if len(values) == 1 else {"$in": values}}
        ranges = [{self.field: {"$gte": start, "$lt": end}} for start, end in _joined(self.windows)]
        return ranges[0] if len(ranges) == 1 else {"$or": ranges} if ranges else _NOTHING

    def partitions_of(self, values: Iterable[Any]) -> list[str | None]:
        """The partition that each value of the field falls under, None where there is none."""
        if self.windows is None:
            keys = set(self.keys)
            return [value if isinstance(value, str) and value in keys else None for value in values]
        ordered = sorted((start, end, key) for key, (start, end) in self.windows.items())
        starts = [start for start, _, _ in ordered]

        def key_of(value: Any) -> str | None:
            at = bisect_right(starts, value) - 1 if isinstance(value, datetime) else -1
            return ordered[at][2] if at >= 0 and value < ordered[at][1] else None

        return [key_of(value) for value in values]

    def count_rows(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """How many rows each partition has.

        Raises:
            MongoFrameError: The partition column is missing, or a row is outside all partitions.
        """
        if rows and not any(self.field in row for row in rows):
            raise MongoFrameError(f"There is no partition column {self.field!r}.")
        values = [as_utc(row.get(self.field)) for row in rows]
        partitions = self.partitions_of(values)
        if None in partitions:
            row = partitions.index(None)
            raise MongoFrameError(
                f"Row {row} ({self.field}={values[row]!r}) belongs to none of the partitions that"
                " this run stores. Time partitions are matched by datetimes, others by the key as"
                " text."
            )
        counts = Counter(partitions)
        return {key: counts[key] for key in self.keys}


_NOTHING: dict[str, Any] = {"_id": {"$in": []}}


def slice_of(context: dg.InputContext | dg.OutputContext, partition_expr: Any) -> Slice | None:
    """The partitions that an input or an output covers, None if the asset has none.

    Raises:
        MongoSettingsError: There is no such column, or the partitions have several dimensions.
    """
    if not context.has_asset_partitions:
        return None
    definition, keys = context.asset_partitions_def, context.asset_partition_keys
    if isinstance(definition, dg.MultiPartitionsDefinition):
        raise MongoSettingsError(
            "Partitions of several dimensions cannot be stored: make one dimension a column, and"
            " mongo/key of it and the others."
        )
    if not isinstance(partition_expr, str) or not partition_expr:
        raise MongoSettingsError(
            "The asset is partitioned, but its metadata does not say by which column: set"
            ' {"partition_expr": "a_column"}.'
        )
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return Slice(partition_expr, keys, None)
    windows = {}
    for key in keys:
        window = definition.time_window_for_partition_key(key)
        windows[key] = (as_utc(window.start), as_utc(window.end))
    return Slice(partition_expr, keys, windows)


def _joined(windows: Mapping[str, Window]) -> list[Window]:
    joined: list[Window] = []
    for start, end in sorted(windows.values()):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
