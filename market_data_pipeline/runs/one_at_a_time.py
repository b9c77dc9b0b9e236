"""Lets one run at a time do a thing, over all runs of an instance, wherever they run.

A pool of Dagster, whose limit this module sets itself: no `dagster.yaml` has to, and the pools of
other projects are left alone. A pool on the asset would do it before the step begins, where no one
can say who is waited for, nor take the place of a run that was killed where no daemon runs.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from market_data_pipeline.runs.dagster_internals import (
    claim,
    fail_run,
    last_left,
    note_left,
    release,
)

BRAPI, KAFKA = "market_data_brapi", "market_data_kafka"
PROCESS_TAG = "market_data/process"
SECONDS_BETWEEN_LOOKS, SECONDS_BETWEEN_LINES = 0.5, 60.0


@contextmanager
def one_at_a_time(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, pool: str, distance: float = 0.0
) -> Iterator[None]:
    """Waits until no other run is within such a context of the same pool, and keeps others out.

    The wait has no limit of its own: only the run's `max_runtime` ends it. The log says which runs
    are waited for. A run whose process is gone is marked as failed, and its place is taken, if it
    ran on this machine; elsewhere Dagster's run monitoring does that. The current run gets a tag
    with the name of its process.

    Args:
        context: of the step that waits.
        pool: the name of the pool; its limit is set to one.
        distance: seconds that have to pass after the last run left. The run that enters waits for
            them, so no run stays longer for its successor's sake.
    """
    instance, run_id = context.instance, context.run.run_id
    step = context.op_def.name
    process = name_of_process(run_id, os.getpid())
    if context.run.tags.get(PROCESS_TAG) != process:
        instance.add_run_tags(run_id, {PROCESS_TAG: process})
    told = float("-inf")
    while (holders := claim(instance, pool, run_id, step)) is not None:
        for holder in holders:
            run = instance.get_run_by_id(holder)
            if run is None or run.is_finished or is_dead(run):
                context.log.warning(f"Run {holder[:8]} has ended without leaving {pool}.")
                release(instance, holder)
                if run and not run.is_finished:
                    fail_run(instance, run, "The process of this run has ended.")
        if holders and time.monotonic() - told >= SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            context.log.info(f"Waiting for run {', '.join(each[:8] for each in holders)} ({pool}).")
        time.sleep(random.uniform(0.5, 1.0) * SECONDS_BETWEEN_LOOKS)  # no two runs in step
    time.sleep(min(distance, max(0.0, last_left(instance, pool) + distance - time.time())))
    try:
        yield
    finally:
        note_left(instance, pool, time.time())
        release(instance, run_id, step)


def name_of_process(run_id: str, pid: int) -> str:
    """Names a process of this machine, also after its number has been given to another.

    And its run: Dagster gives a retry the tags of the run that it replaces.
    """
    return f"{run_id} {socket.gethostname()} {pid} {_start(pid)}"


def is_dead(run: dg.DagsterRun) -> bool:
    """Whether the process of a run is gone, as far as this machine can tell: it ran here."""
    return _process(run) is not None and pid_here(run) is None


def pid_here(run: dg.DagsterRun) -> int | None:
    """The number of the process of a run; None if it is gone, or ran on another machine."""
    pid, start = _process(run) or (0, "")
    return pid if start and _start(pid) == start else None


def _process(run: dg.DagsterRun) -> tuple[int, str] | None:
    """The number of a run's process on this machine, and when it was started."""
    match run.tags.get(PROCESS_TAG, "").split(" "):
        case [run.run_id, host, pid, start] if host == socket.gethostname():
            return int(pid), start
    return None


def _start(pid: int) -> str:
    """When a process was started, in ticks since the machine was; empty if there is none.

    Where there is no /proc (outside Linux), every process counts as alive.
    """
    if not Path("/proc/self/stat").exists():
        return "?"
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
