"""Which documents belong to the partitions of a run, and which rows to which partition."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from dagster_mongo.errors import MongoFrameError, MongoSettingsError

Window = tuple[datetime, datetime]
Query = dict[str, Any]


@dataclass(frozen=True)
class Dimension:
    """A field of the documents, and how a partition key says what is in it.

    The windows of time partitions are half-open and naive UTC, as BSON dates are decoded here;
    other partitions have none, and the field holds the key itself.
    """

    field: str
    windows: Mapping[str, Window] | None

    def query(self, keys: Iterable[str]) -> Query:
        """What matches the documents of these keys, exactly."""
        if self.windows is None:
            values = sorted(keys)
            return {self.field: values[0] if len(values) == 1 else {"$in": values}}
        ranges = [
            {self.field: {"$gte": start, "$lt": end}}
            for start, end in _merged(self.windows[key] for key in keys)
        ]
        return ranges[0] if len(ranges) == 1 else {"$or": ranges}

    def keys_of(self, values: Iterable[Any]) -> list[str | None]:
        """The key that each value falls under, None where there is none."""
        if self.windows is None:
            return [value if isinstance(value, str) else None for value in values]
        ordered = sorted((start, end, key) for key, (start, end) in self.windows.items())
        starts = [start for start, _, _ in ordered]

        def key_of(value: Any) -> str | None:
            at = bisect_right(starts, value) - 1 if isinstance(value, datetime) else -1
            return ordered[at][2] if at >= 0 and value < ordered[at][1] else None

        return [key_of(value) for value in values]


@dataclass(frozen=True)
class Slice:
    """The partitions of one run: `members` has each one's key by the keys of its dimensions."""

    dimensions: tuple[Dimension, ...]
    members: Mapping[tuple[str, ...], str]

    @property
    def fields(self) -> list[str]:
        """The partition fields in the order that an index wants: equality before ranges."""
        return [d.field for d in sorted(self.dimensions, key=lambda d: d.windows is not None)]

    def query(self) -> Query:
        """What matches the documents of these partitions and of no other."""
        if not self.members:
            return {"_id": {"$in": []}}
        if len(self.dimensions) == 1:
            return self.dimensions[0].query(key for (key,) in self.members)
        first, second = self.dimensions
        seconds_of: dict[str, set[str]] = {}
        for key_of_first, key_of_second in self.members:
            seconds_of.setdefault(key_of_first, set()).add(key_of_second)
        firsts_of: dict[frozenset[str], list[str]] = {}
        for key_of_first, seconds in seconds_of.items():
            firsts_of.setdefault(frozenset(seconds), []).append(key_of_first)
        blocks = [
            {"$and": [first.query(firsts), second.query(seconds)]}
            for seconds, firsts in firsts_of.items()
        ]
        return blocks[0] if len(blocks) == 1 else {"$or": blocks}

    def count_rows(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, int]:
        """How many rows each partition has.

        Args:
            columns: The frame's columns as BSON values.

        Raises:
            MongoFrameError: A partition column is missing, or a row is outside all partitions.
        """
        if missing := [d.field for d in self.dimensions if d.field not in columns]:
            raise MongoFrameError(f"The DataFrame has no partition column {missing[0]!r}.")
        located = zip(*(d.keys_of(columns[d.field]) for d in self.dimensions), strict=True)
        counts: Counter[str] = Counter()
        for row, keys in enumerate(located):
            partition = self.members.get(keys)
            if partition is None:
                found = ", ".join(f"{d.field}={columns[d.field][row]!r}" for d in self.dimensions)
                raise MongoFrameError(
                    f"Row {row} ({found}) belongs to none of the partitions that this run stores."
                    " Time partitions are matched by datetime columns, others by the key as text."
                )
            counts[partition] += 1
        return {partition: counts[partition] for partition in self.members.values()}


def slice_of(context: dg.InputContext | dg.OutputContext, partition_expr: Any) -> Slice | None:
    """The partitions that an input or an output covers, None if the asset has none.

    Args:
        context: What Dagster hands to an I/O manager.
        partition_expr: The column that tells the partition, or one for each dimension's name.

    Raises:
        MongoSettingsError: A dimension has no column.
    """
    if not context.has_asset_partitions:
        return None
    definition, keys = context.asset_partitions_def, context.asset_partition_keys
    if not isinstance(definition, dg.MultiPartitionsDefinition):
        dimension = _dimension(definition, partition_expr, keys)
        return Slice((dimension,), {(key,): key for key in keys})

    expressions = partition_expr if isinstance(partition_expr, Mapping) else {}
    parts = definition.partitions_defs
    members: dict[tuple[str, ...], str] = {}
    for key in keys:
        by_name = definition.get_partition_key_from_str(key).keys_by_dimension
        members[tuple(by_name[part.name] for part in parts)] = key
    dimensions = tuple(
        _dimension(part.partitions_def, expressions.get(part.name), {m[i] for m in members})
        for i, part in enumerate(parts)
    )
    return Slice(dimensions, members)


def _dimension(
    definition: dg.PartitionsDefinition,
    field: object,
    keys: Iterable[str],
) -> Dimension:
    if not isinstance(field, str) or not field:
        raise MongoSettingsError(
            "The asset is partitioned, but its metadata does not say by which column: set"
            ' {"partition_expr": "a_column"}, or {"partition_expr": {"a_dimension": "a_column", …}}'
            " for several dimensions."
        )
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return Dimension(field, None)
    windows = {}
    for key in keys:
        window = definition.time_window_for_partition_key(key)
        windows[key] = (_naive_utc(window.start), _naive_utc(window.end))
    return Dimension(field, windows)


def _naive_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def _merged(windows: Iterable[Window]) -> list[Window]:
    merged: list[Window] = []
    for start, end in sorted(windows):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged
