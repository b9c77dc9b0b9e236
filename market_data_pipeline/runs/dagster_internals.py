"""Everything that this project uses of Dagster beyond its documented interface.

An upgrade of Dagster may break these; `test_dagster_internals.py` says which.
"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import _check as check
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._serdes import deserialize_value, serialize_value

if TYPE_CHECKING:
    from dagster._core.storage.event_log.base import EventLogStorage

__all__ = ["CheckRunHealthResult", "LaunchRunContext", "WorkerStatus"]

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


def last_materializations(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> list[int]:
    """A number for each asset that has been materialized, which grows with each materialization."""
    entries = (record.asset_entry for record in instance.get_asset_records(list(keys)))
    return [entry.last_materialization_storage_id or 0 for entry in entries]


def claim(instance: dg.DagsterInstance, pool: str, run_id: str, step: str) -> list[str] | None:
    """Claims the one place of a pool for a step, after setting the pool's limit to one.

    Returns:
        None if the place is this step's; otherwise the ids of the runs that are before it, which
        may be none by now. An instance in memory knows no pools, and no other process.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return None
    from sqlalchemy.exc import IntegrityError  # an instance imports it, the definitions need not

    with _one_process_at_a_time(storage):
        if storage.get_concurrency_info(pool).slot_count != 1:
            try:
                storage.set_concurrency_slots(pool, 1)
            except IntegrityError:  # another run has just set it, on PostgreSQL
                return []
        claimed = storage.claim_concurrency_slot(pool, run_id, step).is_claimed
        info = storage.get_concurrency_info(pool)
    others = {each.run_id for each in info.claimed_slots} - {run_id}
    if claimed and not others:
        return None
    if claimed:
        # The limit was higher, and another run still has one of the places.
        storage.free_concurrency_slot_for_step(run_id, step)
    assigned = {each.run_id for each in info.pending_steps if each.assigned_timestamp}
    return sorted((others | assigned) - {run_id})


@contextmanager
def _one_process_at_a_time(storage: EventLogStorage) -> Iterator[None]:
    """Keeps the other processes from claiming in a SQLite storage.

    Dagster reads which place is free and then takes it. PostgreSQL locks the row in between; on
    SQLite two runs would take the same place, and both would be let in.
    """
    from dagster._core.storage.event_log import SqliteEventLogStorage

    if not isinstance(storage, SqliteEventLogStorage):
        yield
        return
    with Path(storage.path_for_shard("pools")).with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        yield


def release(instance: dg.DagsterInstance, run_id: str, step: str | None = None) -> None:
    """Gives the places of a run in all pools back, or those of one of its steps."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    if step is None:
        storage.free_concurrency_slots_for_run(run_id)
    else:
        storage.free_concurrency_slot_for_step(run_id, step)


def fail_run(instance: dg.DagsterInstance, run: dg.DagsterRun, reason: str) -> None:
    """Records that a run has failed whose process cannot record it any more."""
    instance.report_run_failed(run, reason)


def is_of_this_location(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Whether a run was launched by the code location that the sensor is in.

    Outside of a daemon a sensor is in no code location; nor is a run that no daemon and no
    webserver has launched.
    """
    here, origin = context.code_location_origin, run.remote_job_origin
    of_run = origin and origin.repository_origin.code_location_origin.location_name
    return of_run == (here and here.location_name)


def last_left(instance: dg.DagsterInstance, pool: str) -> float:
    """When `note_left` was last called for a pool, in Unix seconds; 0 if never."""
    return float(instance.run_storage.get_cursor_values({pool}).get(pool, 0.0))


def note_left(instance: dg.DagsterInstance, pool: str, now: float) -> None:
    """Keeps the present instant for `last_left`, in Unix seconds, over all runs of the instance."""
    instance.run_storage.set_cursor_values({pool: repr(now)})


def code_of(run: dg.DagsterRun) -> str | None:
    """What identifies the code location of a run; None if it needs another Python than this one."""
    origin = run.job_code_origin and run.job_code_origin.repository_origin
    return origin.get_id() if origin and origin.executable_path == sys.executable else None


def run_arguments(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """The argument of `dagster api execute_run` that makes a process execute a run."""
    from dagster._grpc.types import ExecuteRunArgs

    origin = check.not_none(run.job_code_origin)
    return serialize_value(ExecuteRunArgs(origin, run.run_id, instance.get_ref()))


def load_job(arguments: str) -> None:
    """Loads the job of a run into this process, with the environment that the instance gives it."""
    from dagster._cli.utils import get_instance_for_cli
    from dagster._grpc.types import ExecuteRunArgs
    from dagster._utils.hosted_user_process import recon_job_from_origin

    args = deserialize_value(arguments, ExecuteRunArgs)
    with get_instance_for_cli(instance_ref=args.instance_ref) as instance:
        run = check.not_none(instance.get_run_by_id(args.run_id))
        location = run.remote_job_origin.location_name if run.remote_job_origin else None
        instance.inject_env_vars(location)
    import dagster._cli.api  # noqa: F401 - what `execute_run` needs

    recon_job_from_origin(args.job_origin).get_definition()


def execute_run(arguments: str) -> None:
    """Executes a run in this process."""
    from dagster._cli.api import execute_run_command

    check.not_none(execute_run_command.callback)(arguments, None)


def serve_code(preloaded: Sequence[str]) -> None:
    """Runs `dagster api grpc` with the arguments of this process, and forks its runs.

    The code has to be a module (`--module-name`).

    Args:
        preloaded: modules that the runs find imported, beside Dagster and their own.
    """
    import multiprocessing
    from multiprocessing.forkserver import ensure_running

    from dagster._cli.api import grpc_command
    from dagster._grpc import server

    class ForkingServer(server.DagsterApiServer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            context = multiprocessing.get_context("forkserver")
            own = arguments["loadable_target_origin"].module_name
            context.set_forkserver_preload(["dagster._grpc.impl", own, *preloaded])
            self._mp_ctx = context  # type: ignore[assignment]
            ensure_running()

    server.DagsterApiServer = ForkingServer  # type: ignore[misc, assignment]
    # Code that cannot be loaded is shown in the UI, and is no reason to end.
    grpc_command(["--lazy-load-user-code", *sys.argv[1:]])
