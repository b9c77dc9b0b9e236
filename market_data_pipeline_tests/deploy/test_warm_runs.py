"""Runs that are forked from a warm process: of `dagster dev`, and of a code server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.reconstruct import ReconstructableJob

from market_data_pipeline.operation.run_launcher import Template
from market_data_pipeline.runs.dagster_internals import run_arguments
from market_data_pipeline.runs.one_at_a_time import PROCESS_TAG
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
SERVED = [
    "market_data_pipeline.operation.code_server",
    "--host",
    "127.0.0.1",
    "--module-name",
    "some_jobs",
]
WITHOUT_A_QUEUE = """
run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}
"""
CODE = """
import os, time
import dagster as dg

with open("imports", "a") as file:
    file.write(f"{os.getpid()}\\n")

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

    LOCATION = ("-f", "some_jobs.py")

    def __init__(self, folder: Path) -> None:
        self.folder, self.code = folder, folder / "some_jobs.py"
        self.code.write_text(CODE)
        self._children: list[Child] = []
        self.configure()
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.start("dagster", "dev", *self.LOCATION, "-h", "127.0.0.1", "-p", str(port))

    def configure(self) -> None:
        shutil.copy(ROOT / "dagster.yaml", self.folder)

    def start(self, *module: str) -> None:
        ours = {name: value for name, value in os.environ.items() if not OURS.match(name)}
        child = Child(
            module[0],
            ["env", f"--chdir={self.folder}", sys.executable, "-m", *module],
            {**ours, "DAGSTER_HOME": str(self.folder), "PYTHONPATH": str(ROOT)},
            self.folder / f"{module[0]}.log",
            stop_signal=signal.SIGINT,
            patience=20,
        )
        self._children.append(child)

    def stop(self) -> None:
        for child in reversed(self._children):
            child.stop()

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


class CodeServer(Server):
    """The code server of a deployment, beside a webserver and a daemon with Dagster's launcher."""

    LOCATION = ("-w", "served.yaml")

    def configure(self) -> None:
        (self.folder / "dagster.yaml").write_text(WITHOUT_A_QUEUE)
        # Two processes that make the tables of SQLite at once are in each other's way.
        dg.DagsterInstance.from_config(str(self.folder)).dispose()
        (port,) = free_ports(1)
        served = {"host": "127.0.0.1", "port": port, "location_name": "some_jobs.py"}
        workspace = yaml.safe_dump({"load_from": [{"grpc_server": served}]})
        (self.folder / "served.yaml").write_text(workspace)
        self.start(*SERVED, "--port", str(port))

    def launch_started(self) -> tuple[Run, int]:
        """A run that has started, and its process."""
        run = self.run(self.launch("long"), "STARTED")
        found = re.search(r"Started process for run \(pid: (\d+)\)", messages(self.url, run.id))
        assert found
        return run, int(found[1])


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


@pytest.fixture(scope="module")
def code_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CodeServer]:
    server = CodeServer(tmp_path_factory.mktemp("served"))
    yield server
    server.stop()


def process_of(run: Run) -> int:
    return int(run.tags[PROCESS_TAG].split()[2])


def parent_in(said: str) -> int:
    found = re.search(r"version one, a child of (\d+)", said)
    assert found
    return int(found[1])


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
    assert b"run_template" in Path(f"/proc/{parent_in(server.said())}/cmdline").read_bytes()
    server.code.write_text(CODE.replace("version one", "version two"))
    assert "version two" in server.said()
    assert "version two" in server.said()


def test_a_run_begins_when_the_launcher_has_recorded_its_process(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = tmp_path / "some_jobs.py"
    code.write_text(CODE)
    job = ReconstructableJob.for_file(str(code), "short")
    origin = job.get_python_origin()
    run_id = instance.create_run_for_job(job.get_definition(), job_code_origin=origin).run_id
    line = run_arguments(instance, get_run(instance, run_id))
    template = Template(line)
    eventually(lambda: template.fork(line))
    time.sleep(1)
    assert get_run(instance, run_id).status == dg.DagsterRunStatus.NOT_STARTED

    template.begin()

    eventually(lambda: get_run(instance, run_id).is_success)


def get_run(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def test_the_runs_of_a_code_server_are_forks_of_a_process_that_has_imported_the_code(
    code_server: CodeServer,
) -> None:
    imported_by = {parent_in(code_server.said()) for _ in range(3)}
    assert len(imported_by) == 1
    # The other one serves the definitions.
    imports = (code_server.folder / "imports").read_text().split()
    assert len(imports) == 2
    assert imported_by < {*map(int, imports)}


def test_a_run_of_a_code_server_that_is_killed_harms_no_other_and_a_terminated_one_ends(
    code_server: CodeServer,
) -> None:
    killed, process = code_server.launch_started()
    other, process_of_other = code_server.launch_started()
    os.kill(process, signal.SIGKILL)
    code_server.run(killed.id, "FAILURE")
    assert code_server.run(other.id, "STARTED")
    terminate_run(code_server.url, other.id)
    code_server.run(other.id, "CANCELED")
    eventually(lambda: not Path(f"/proc/{process_of_other}").exists())
    assert "version one" in code_server.said()
