"""Undocumented parts of Dagster that the package uses: tags, methods of the storage, origins.

An upgrade of Dagster may break these; `test_dagster_internals.py` says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg

MOST_EVALUATIONS = 20
PARTITION_TAG = "dagster/partition"
ASSET_PARTITION_RANGE_START_TAG = "dagster/asset_partition_range_start"
ASSET_PARTITION_RANGE_END_TAG = "dagster/asset_partition_range_end"


def evaluations(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey
) -> Iterator[dg.AssetCheckEvaluation]:
    """The last evaluations of a check, newest first."""
    storage = instance.event_log_storage
    for record in storage.get_asset_check_execution_history(key, limit=MOST_EVALUATIONS):
        evaluation = record.evaluation
        if isinstance(evaluation, dg.AssetCheckEvaluation):  # not only planned
            yield evaluation


def last_materializations(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> list[int]:
    """A number for each asset that has been materialized, which grows with each materialization."""
    entries = (record.asset_entry for record in instance.get_asset_records(list(keys)))
    return [entry.last_materialization_storage_id or 0 for entry in entries]


def postgres_url(instance: dg.DagsterInstance) -> str:
    """The address of the PostgreSQL that the instance keeps its events in; empty for another."""
    return getattr(instance.event_log_storage, "postgres_url", "")


def is_of_this_location(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Whether a run was launched by the code location that the sensor is in.

    Outside of a daemon a sensor is in no code location; nor is a run that no daemon and no
    webserver has launched.
    """
    here, origin = context.code_location_origin, run.remote_job_origin
    of_run = origin and origin.repository_origin.code_location_origin.location_name
    return of_run == (here and here.location_name)
