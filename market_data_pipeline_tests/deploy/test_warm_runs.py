"""Runs that are forked from a warm process, on a `dagster dev` of their own."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import yaml

from market_data_pipeline.one_at_a_time import PROCESS_TAG
from market_data_pipeline_dev.process import Child
from market_data_pipeline_tests.deploy.webserver import (
    NoAnswerError,
    Run,
    launch_run,
    messages,
    runs,
    terminate_run,
)
from market_data_pipeline_tests.supervised import OURS, ROOT, free_ports

T = TypeVar("T")
DAGSTER_DEV = ["-m", "dagster", "dev", "-f", "some_jobs.py", "-h", "127.0.0.1"]
CODE = """
import os, time
import dagster as dg

@dg.op
def say(context):
    context.log.info(f"version one, a child of {os.getppid()}")

@dg.op
def wait():
    time.sleep(300)

@dg.job
def short():
    say()

@dg.job
def long():
    wait()

defs = dg.Definitions(jobs=[short, long], executor=dg.in_process_executor)
"""


class Server:
    """Dagster with the launcher of `dagster.yaml`, and code that a test may change."""

    def __init__(self, folder: Path) -> None:
        instance = yaml.safe_load((ROOT / "dagster.yaml").read_text())
        (folder / "dagster.yaml").write_text(yaml.safe_dump(instance))
        self.code = folder / "some_jobs.py"
        self.code.write_text(CODE)
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        ours = {name: value for name, value in os.environ.items() if not OURS.match(name)}
        self._dagster = Child(
            "Dagster",
            ["env", f"--chdir={folder}", sys.executable, *DAGSTER_DEV, "-p", str(port)],
            {**ours, "DAGSTER_HOME": str(folder), "PYTHONPATH": str(ROOT)},
            folder / "log",
            stop_signal=signal.SIGINT,
            patience=20,
        )

    def stop(self) -> None:
        self._dagster.stop()

    def launch(self, job: str) -> str:
        return eventually(lambda: launch_run(self.url, "some_jobs.py", job, ""))

    def run(self, run_id: str, *statuses: str) -> Run:
        """The run, once it is in one of these statuses."""

        def found() -> Run | None:
            (one,) = (run for run in runs(self.url) if run.id == run_id)
            return one if one.status in statuses else None

        return eventually(found)

    def said(self) -> str:
        """What a new run logs."""
        return messages(self.url, self.run(self.launch("short"), "SUCCESS").id)

    def launch_warm(self, job: str) -> Run:
        """A run that was forked, as soon as there can be one, once it has started."""

        def launched() -> Run | None:
            run = self.run(self.launch(job), "STARTED")
            if PROCESS_TAG in run.tags:
                return run
            terminate_run(self.url, run.id)
            return None

        return eventually(launched)


def eventually(what: Callable[[], T | None], seconds: float = 120) -> T:
    """What is there in the end."""
    patience = time.monotonic() + seconds
    last: Exception | None = None
    while time.monotonic() < patience:
        try:
            if found := what():
                return found
        except (NoAnswerError, KeyError) as error:
            last = error
        time.sleep(0.2)
    raise AssertionError from last


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("warm"))
    yield server
    server.stop()


def process_of(run: Run) -> int:
    return int(run.tags[PROCESS_TAG].split()[2])


def test_a_run_that_is_killed_harms_no_other_and_one_that_is_terminated_ends(
    server: Server,
) -> None:
    killed, other = server.launch_warm("long"), server.launch_warm("long")
    os.kill(process_of(killed), signal.SIGKILL)
    server.run(killed.id, "FAILURE")
    assert server.run(other.id, "STARTED")
    terminate_run(server.url, other.id)
    server.run(other.id, "CANCELED")
    eventually(lambda: not Path(f"/proc/{process_of(other)}").exists())


def test_a_run_has_the_code_that_is_on_the_disk(server: Server) -> None:
    server.launch_warm("long")
    parent = re.search(r"version one, a child of (\d+)", server.said())
    assert parent
    assert b"run_template" in Path(f"/proc/{parent[1]}/cmdline").read_bytes()
    server.code.write_text(CODE.replace("version one", "version two"))
    assert "version two" in server.said()
    assert "version two" in server.said()
