"""Launches a run in a process that has imported the code already."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

from dagster import DagsterRun, DefaultRunLauncher

from market_data_pipeline.runs.dagster_internals import (
    CheckRunHealthResult,
    LaunchRunContext,
    WorkerStatus,
    code_of,
    run_arguments,
)
from market_data_pipeline.runs.one_at_a_time import PROCESS_TAG, is_dead, name_of_process, pid_here

FORKED_TAG = "market_data/forked"


class WarmRunLauncher(DefaultRunLauncher):
    """Forks each run from a process that is kept warm, where Dagster's default starts it cold.

    A cold run imports Dagster and the code before it does anything. Here the first run of a code
    location is cold, as `DefaultRunLauncher` starts it, and a template is warmed beside it; later
    runs are forks of the template, until a file of the code or `.env` changes. Each run is a
    process of its own: one that is killed harms no other, and run monitoring notices it.

    The code has to be installed where this launcher runs, in the daemon and the webserver, and runs
    are processes of their machine. It takes no config:

        run_launcher:
          module: market_data_pipeline.operation.run_launcher
          class: WarmRunLauncher
    """

    def __init__(self, inst_data: object = None) -> None:
        super().__init__(inst_data)  # type: ignore[arg-type]
        self._templates: dict[str, Template] = {}
        self._lock = threading.Lock()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Forks the run, or launches it as `DefaultRunLauncher` does if no template is ready."""
        with self._lock:
            forked = self._fork(context.dagster_run)
        if not forked:
            super().launch_run(context)

    def _fork(self, run: DagsterRun) -> bool:
        code = code_of(run)
        if code is None:
            return False
        line = run_arguments(self._instance, run)
        template = self._templates.get(code)
        if template is None or template.has_ended:
            self._templates[code] = Template(line)
            return False
        pid = template.fork(line)
        if pid is None:
            return False
        process = name_of_process(run.run_id, pid)
        try:
            # Before it begins: of two processes that change a run at once, Dagster keeps one's.
            self._instance.add_run_tags(run.run_id, {PROCESS_TAG: process, FORKED_TAG: run.run_id})
        finally:
            template.begin()
        return True

    def terminate(self, run_id: str) -> bool:
        """Interrupts the process of a run, which then ends as canceled.

        Returns:
            Whether it was there to be interrupted: on this machine, and alive.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or not _is_forked(run):
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        pid = pid_here(run)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return pid is not None

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a run is there; of cold runs their code location keeps track."""
        dead = _is_forked(run) and is_dead(run)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND if dead else WorkerStatus.RUNNING)


class Template:
    """The process of `run_template`, seen from the launcher.

    Args:
        line: arguments of a run of the job that it is to load.
    """

    def __init__(self, line: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "market_data_pipeline.operation.run_template"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ready = threading.Event()
        threading.Thread(target=self._warm_up, args=[line], daemon=True).start()

    def _warm_up(self, line: str) -> None:
        if self._ask(line):
            self._ready.set()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def fork(self, line: str) -> int | None:
        """Makes the process of a run, which waits for `begin`.

        Returns:
            Its number; None if the template is not ready, or has ended.
        """
        answer = self._ready.is_set() and self._ask(line)
        return int(answer) if answer else None

    def begin(self) -> None:
        """Lets the process that was made last execute its run."""
        self._say("")

    def _ask(self, line: str) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip() if self._say(line) else ""

    def _say(self, line: str) -> bool:
        """Whether it could be told."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except OSError:
            return False
        return True


def _is_forked(run: DagsterRun) -> bool:
    return run.tags.get(FORKED_TAG) == run.run_id  # a retry has the tags of its parent
