"""What consumers feel: the seconds from a window's end to its events on the topic, in operation.

    python -m benchmarks.operation [WINDOWS] [--plans free pro]

`dagster dev` with its daemon runs two code locations on one instance: the pipeline in the middle of
a session, with windows of three minutes, and three empty assets, without checks and with as many as
the pipeline has, in turn in the minutes between. Brapi, MongoDB and Kafka are the stand-ins of
`make dev`; an answer takes 150 ms. Whatever else the machine does counts in, for all alike.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import yaml
from brapi_sandbox.sandbox import Sandbox, serve

from benchmarks.stand_ins import ANSWER, INTERVAL, REPOSITORY, stand_ins
from market_data_pipeline_dev.process import Child
from market_data_pipeline_tests.deploy.set_back import SetBack

WINDOW = timedelta(minutes=3)
# A Tuesday in the middle of a session.
BEGINNING = datetime(2026, 11, 17, 14, 0, tzinfo=UTC)
FLOORS = {"free": 49 * INTERVAL + ANSWER, "pro": 2 * INTERVAL + ANSWER}
CONTROLS = {"empty": "three empty assets", "checked": "three empty assets with as many checks"}
FIRST = "the first window of a start committed on the topic"
MOMENTS = (
    "run created",
    "run begins",
    "first request",
    "last answer",
    "window committed on the topic",
    FIRST,
    "run ends",
    *(
        f"run of {control} {moment}"
        for control in CONTROLS.values()
        for moment in ("begins", "ends")
    ),
)


@contextmanager
def deployment(folder: Path, plan: str) -> Iterator[tuple[Path, Sandbox, SetBack]]:
    """Runs all of it, until the context ends: the instance's folder, the sandbox and the clock."""
    clock = SetBack(BEGINNING, WINDOW)
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())
    modules = ("market_data_pipeline_tests.deploy.minutes", "benchmarks.empty")
    locations = [{"python_module": module} for module in modules]
    (folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": locations}))
    with ExitStack() as stack:
        sandbox = stack.enter_context(serve(plan=plan, latency=ANSWER))
        sandbox.now = clock.now
        sandbox.quota_header = "x-unknown"  # for windows this short, the quota would be paced
        settings = stack.enter_context(stand_ins(folder, sandbox.url, plan))
        environment = (
            os.environ
            | settings
            | {
                "DAGSTER_HOME": str(home),
                "PYTHONPATH": str(REPOSITORY),
                **clock.settings,
                "NO_PROXY": "127.0.0.1",
            }
        )
        command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml"]
        command = ["env", f"--chdir={folder}", *command, "-h", "127.0.0.1", "-p", "0"]
        log = folder / "dagster.log"
        dagster = Child(
            "Dagster", command, environment, log, stop_signal=signal.SIGINT, patience=20
        )
        stack.callback(dagster.stop)
        yield home, sandbox, clock


def schedules_of(home: Path, schedule: str) -> list[dg.RunRecord]:
    """The finished runs of a schedule, the oldest first."""
    only = dg.RunsFilter(
        tags={"dagster/schedule_name": schedule}, statuses=[dg.DagsterRunStatus.SUCCESS]
    )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return [*instance.get_run_records(only, ascending=True)]


def committed(home: Path, run_id: str) -> float:
    """When a run has committed its window, in seconds after the window's end."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        records = instance.fetch_materializations(
            dg.AssetKey("kafka_publication"), limit=100
        ).records
    found = [each.asset_materialization for each in records if each.run_id == run_id]
    return float(found[0].metadata["seconds_after_window_end"].value)  # type: ignore[union-attr, arg-type]


def measured(windows: int, plan: str) -> dict[str, list[float]]:
    """The seconds after a window's end of every moment, window by window."""
    moments: dict[str, list[float]] = {name: [] for name in MOMENTS}
    with (
        tempfile.TemporaryDirectory() as name,
        deployment(Path(name), plan) as (home, sandbox, clock),
    ):
        offset = time.time() - time.monotonic()
        ours: list[dg.RunRecord] = []
        while len(ours) <= windows:  # the first one is listed apart
            time.sleep(5)
            ours = schedules_of(home, "every_window")
        moments[FIRST] = [committed(home, ours[0].dagster_run.run_id)]
        for record in ours[1:]:
            start = datetime.fromisoformat(record.dagster_run.tags["dagster/partition"])
            end = (start + WINDOW + clock.behind).timestamp()
            asked = [
                each.at + offset - end
                for each in sandbox.requests
                if 0 <= each.at + offset - end < WINDOW.total_seconds() - 90
            ]
            moments["run created"].append(record.create_timestamp.timestamp() - end)
            moments["run begins"].append((record.start_time or 0) - end)
            moments["first request"].append(min(asked))
            moments["last answer"].append(max(asked) + ANSWER)
            moments["window committed on the topic"].append(
                committed(home, record.dagster_run.run_id)
            )
            moments["run ends"].append((record.end_time or 0) - end)
        for job, control in CONTROLS.items():
            for record in schedules_of(home, f"{job}_schedule")[1:]:
                end = _minute(record)
                begun, ended = record.start_time or 0, record.end_time or 0
                moments[f"run of {control} begins"].append(begun - end)
                moments[f"run of {control} ends"].append(ended - end)
    return moments


def _minute(record: dg.RunRecord) -> float:
    return record.create_timestamp.timestamp() // 60 * 60


def table(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    """The medians by plan, in Markdown."""
    plans = [*figures]
    yield "| seconds after the window's end | " + " | ".join(plans) + " |"
    yield "| --- |" + " ---: |" * len(plans)
    medians = {
        plan: {name: statistics.median(values) for name, values in moments.items()}
        for plan, moments in figures.items()
    }
    for name in MOMENTS:
        yield f"| {name} | " + " | ".join(f"{medians[plan][name]:.2f}" for plan in plans) + " |"
    own = [medians[each]["window committed on the topic"] - FLOORS[each] for each in plans]
    yield "| **the pipeline's own, to the commit** | " + " | ".join(f"{s:.2f}" for s in own) + " |"
    for control in CONTROLS.values():
        ratios = []
        for of_plan in medians.values():
            whole = of_plan["run ends"] - (of_plan["last answer"] - of_plan["first request"])
            ratios.append(f"{whole / of_plan[f'run of {control} ends']:.2f}")
        yield f"| run without its fetch ÷ {control} | " + " | ".join(ratios) + " |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Latency in operation.")
    parser.add_argument("windows", nargs="?", type=int, default=10)
    parser.add_argument("--plans", nargs="+", choices=FLOORS, default=[*FLOORS])
    options = parser.parse_args()
    figures = {plan: measured(options.windows, plan) for plan in options.plans}
    for line in table(figures):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
