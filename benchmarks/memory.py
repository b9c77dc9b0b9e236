"""What the processes of production weigh after many runs.

    python -m benchmarks.memory [RUNS]

Launches runs of `market_data_job` as the UI does, for past windows of a day on which B3 is closed,
some at a time, and asks for the page of runs meanwhile. After 5 runs, and every 100, it lets all
come to rest and adds up what the processes have for themselves and their share of the rest (PSS).
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from market_data_pipeline_dev.process import stop_on_signals
from market_data_pipeline_tests.deploy.webserver import NoAnswerError, launch_run, runs
from market_data_pipeline_tests.services.deployment import (
    MINUTE,
    UNFINISHED,
    Deployment,
    brapi,
    deployed,
    key_of,
    say,
)

# A Saturday; the windows are those of the session of the Thursday before, Friday is a holiday.
BEGINNING = datetime(2026, 11, 21, 15, 0, tzinfo=UTC)
SESSION = datetime(2026, 11, 19, 13, 0, tzinfo=UTC)
WINDOWS = 480
AT_A_TIME = 8
SECONDS_BETWEEN_LOOKS, SECONDS_AT_REST = 3, 10
FOUR_AT_A_TIME = {"concurrency": {"runs": {"max_concurrent_runs": 4}}}
# A part of the command line of each kind of process.
PROGRAMS = {
    "daemon": "dagster-daemon",
    "webserver": "dagster-webserver",
    "code location": "dagsterapigrpc",
}


def memory() -> dict[str, int]:
    """The bytes of the processes of each kind, and of all that they have started."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            found = re.search(r"^PPid:\s+(\d+)", status.read_text(), re.MULTILINE)
        except OSError:
            continue  # it has just ended
        if found:
            children.setdefault(int(found[1]), []).append(int(status.parent.name))
    ours = children[os.getpid()]
    return {
        name: sum(
            _share(pid)
            for root in ours
            if program in _command(root)
            for pid in _tree(root, children)
        )
        for name, program in PROGRAMS.items()
    }


def _tree(root: int, children: dict[int, list[int]]) -> Iterator[int]:
    yield root
    for child in children.get(root, []):
        yield from _tree(child, children)


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", "")


def _share(pid: int) -> int:
    """A process's PSS; nothing if it has just ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


class Load:
    """Runs that are launched, and how many have ended."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._windows = itertools.cycle(SESSION + n * MINUTE for n in range(WINDOWS))
        self._launched = 0

    def run_until(self, number: int) -> None:
        """Launches runs until there were so many, and waits until all is at rest."""
        rest = 0
        while rest < SECONDS_AT_REST:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            self._deployment.restart_those_that_ended()
            try:
                # What a browser on the page of runs asks for.
                found = runs(self._deployment.url, limit=25)
                under_way = sum(run.status in UNFINISHED for run in found)
                for _ in range(min(AT_A_TIME - under_way, number - self._launched)):
                    self._launch()
                    under_way += 1
            except NoAnswerError:
                continue
            rest = 0 if under_way else rest + SECONDS_BETWEEN_LOOKS

    def _launch(self) -> None:
        key = key_of(next(self._windows))
        launch_run(self._deployment.url, "market_data_pipeline", "market_data_job", key)
        self._launched += 1


def measure(deployment: Deployment, most: int) -> dict[int, dict[str, int]]:
    """The memory after so many runs; says each as it comes."""
    deployment.start()
    deployment.wait_for_the_first_run()
    load = Load(deployment)
    measured: dict[int, dict[str, int]] = {}
    say(f"{'runs':>7}" + "".join(f"{name + ' MiB':>20}" for name in PROGRAMS))
    for number in [5, *range(100, most + 1, 100)]:
        load.run_until(number)
        measured[number] = weights = memory()
        say(f"{number:>7}" + "".join(f"{weights[name] / 2**20:>20.1f}" for name in PROGRAMS))
    return measured


def say_the_growth(measured: dict[int, dict[str, int]]) -> None:
    """By how much each process grew with every run, in each stretch and over all but the first."""
    numbers = sorted(measured)
    stretches = [*itertools.pairwise(numbers)]
    if len(numbers) > 3:
        stretches.append((numbers[1], numbers[-1]))
    say("KiB a run")
    for first, last in stretches:
        grown = (
            (measured[last][name] - measured[first][name]) / 1024 / (last - first)
            for name in PROGRAMS
        )
        say(f"{first:>3}-{last:<3}" + "".join(f"{each:>20.1f}" for each in grown))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What the processes weigh after many runs.")
    parser.add_argument("runs", type=int, nargs="?", default=500)
    options = parser.parse_args()
    stop_on_signals()
    settings = {"PARTITIONS_START": f"{SESSION:%Y-%m-%d}"}
    with (
        brapi() as sandbox,
        deployed(
            sandbox, beginning=BEGINNING, settings=settings, instance=FOUR_AT_A_TIME
        ) as deployment,
    ):
        say_the_growth(measure(deployment, options.runs))
        say(Counter(run.status for run in runs(deployment.url)))


if __name__ == "__main__":
    main()
