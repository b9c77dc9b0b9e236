"""Closes the records of runs whose processes ended with a supervisor that was killed.

Dagster would take them for running, and their windows would not be launched again.
"""

from __future__ import annotations

from pathlib import Path


def close_orphans(home: Path) -> int:
    """Marks every unfinished run of an instance that nothing runs on as failed.

    Returns:
        How many there were.
    """
    import dagster as dg
    from dagster import DagsterRunStatus as Status

    if not (home / "dagster.yaml").exists():
        return 0
    unfinished = [Status.NOT_STARTED, Status.STARTING, Status.STARTED, Status.CANCELING]
    with dg.DagsterInstance.from_config(str(home)) as instance:
        orphans = instance.get_runs(dg.RunsFilter(statuses=unfinished))
        for run in orphans:
            instance.report_run_failed(run, "`make dev` was killed while the run was under way.")
    return len(orphans)
