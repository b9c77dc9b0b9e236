"""Everything that this project uses of Dagster beyond its documented interface.

An upgrade of Dagster may break these; `test_dagster_internals.py` says which.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

PARTITION_TAG = "dagster/partition"
ASSET_PARTITION_RANGE_START_TAG = "dagster/asset_partition_range_start"
ASSET_PARTITION_RANGE_END_TAG = "dagster/asset_partition_range_end"


def daemon_id(instance: dg.DagsterInstance) -> str | None:
    """The id of the daemon that runs sensors, a new one at each of its starts; None before it."""
    heartbeat = instance.get_daemon_heartbeats().get("SENSOR")
    return heartbeat and heartbeat.daemon_id


def last_evaluations(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]
) -> list[dg.AssetCheckEvaluation]:
    """The evaluation that each check shows at present; checks never evaluated are left out."""
    storage = instance.event_log_storage
    records = storage.get_asset_check_summary_records(list(keys)).values()
    completed = (record.last_completed_check_execution_record for record in records)
    return [record.evaluation for record in completed if record and record.evaluation]
