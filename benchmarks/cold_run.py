"""A run in a new process, as a run worker starts it: its parts, beside the plain pattern.

    python -m benchmarks.cold_run [ROUNDS]

The contestants take turns; medians. The sandbox answers after 150 ms.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from benchmarks.stand_ins import ANSWER, INTERVAL, REPOSITORY, sandbox, stand_ins
from market_data_pipeline.market.clock import utc_now
from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.runs.common import WINDOWS

FLOOR_SECONDS = 49 * INTERVAL + ANSWER
TICKERS = [*load_watchlist().tickers]
# Sizes of a watchlist, and tickers in one request of the plan `pro`.
SIZES, BATCH = (50, 500, 2000), 20


class Figures(NamedTuple):
    """Of one run: seconds in all, of the fetch, of the two steps that follow, the peak in MiB."""

    seconds: float
    memory: float
    fetch: float = 0.0
    store: float = 0.0
    publish: float = 0.0

    @property
    def rest(self) -> float:
        """Seconds without the fetch."""
        return self.seconds - self.fetch


@contextmanager
def services(plan: str, tickers: Sequence[str]) -> Iterator[dict[str, str]]:
    """The settings of a run for these tickers, all that it talks to in processes of their own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        sandbox(plan, ANSWER, tickers) as brapi,
        stand_ins(Path(folder), brapi, plan) as settings,
    ):
        watchlist = Path(folder, "watchlist.csv")
        watchlist.write_text("\n".join(["ticker", *tickers]))
        yield settings | {"WATCHLIST_FILE": str(watchlist)}


def pipeline(settings: Mapping[str, str]) -> Figures:
    """One run of the pipeline, for the last window that has ended."""
    seconds, memory, home = _run("market_data_pipeline.definitions", "market_data_job", settings)
    return Figures(seconds, memory, *_parts(home))


def empty(settings: Mapping[str, str]) -> Figures:
    """One run of three empty assets."""
    seconds, memory, _ = _run("benchmarks.empty", "empty", settings)
    return Figures(seconds, memory)


def plain(settings: Mapping[str, str]) -> Figures:
    """One round of the plain pattern."""
    addresses = [
        settings[name] for name in ("BRAPI_BASE_URL", "MONGO_URI", "KAFKA_BOOTSTRAP_SERVERS")
    ]
    command = [sys.executable, "benchmarks/plain.py", *addresses, str(INTERVAL), *TICKERS]
    return Figures(*_process(command, os.environ))


def _run(module: str, job: str, settings: Mapping[str, str]) -> tuple[float, float, Path]:
    """Seconds and MiB of one run, and its instance, which stays for the next run."""
    home = Path(settings["QUOTES_PATH"]).with_name(f"instance-of-{module}")
    if not home.exists():
        home.mkdir(parents=True)
        (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    window = WINDOWS.last_ended(utc_now())
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", module]
    command += ["-j", job, "--tags", json.dumps({"dagster/partition": window.key})]
    return *_process(command, os.environ | settings | {"DAGSTER_HOME": str(home)}), home


def _process(command: list[str], env: Mapping[str, str]) -> tuple[float, float]:
    """Seconds and peak memory in MiB of a process."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=env, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        if status:
            output.seek(0)
            sys.exit(output.read())
    return seconds, usage.ru_maxrss / 1024


def _parts(home: Path) -> tuple[float, ...]:
    """Seconds of the fetch, the store and the publication of the last run."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (record,) = instance.fetch_materializations(dg.AssetKey("quotes"), limit=1).records
        sinks = ["mongo_price_history", "kafka_publication"]
        stats = instance.get_run_step_stats(record.run_id, sinks)
    assert record.asset_materialization is not None
    fetch = record.asset_materialization.metadata["fetch_seconds"].value
    took = {each.step_key: (each.end_time or 0) - (each.start_time or 0) for each in stats}
    return float(fetch), *(took[sink] for sink in sinks)  # type: ignore[arg-type]


def measured(rounds: int, *contestants: Callable[[], Figures]) -> list[Figures]:
    """The medians of each; a round before them is not counted."""
    figures = [[each() for each in contestants] for _ in range(rounds + 1)][1:]
    return [
        Figures(*(statistics.median(values) for values in zip(*of_one, strict=True)))
        for of_one in zip(*figures, strict=True)
    ]


def parts(rounds: int) -> Iterator[str]:
    """A run of one window, in parts, beside the plain pattern and the least that it can take."""
    with services("free", TICKERS) as settings:
        ours, control, loop = measured(
            rounds, *(lambda of=of: of(settings) for of in (pipeline, empty, plain))
        )
    other = ours.rest - control.seconds - ours.store - ours.publish
    yield "| | seconds | of the floor | peak memory |"
    yield "| --- | ---: | ---: | ---: |"
    yield f"| floor: 49 intervals and an answer | {FLOOR_SECONDS:.2f} | 1.00 | |"
    for name, took, peak in (
        ("**a run of the pipeline**", ours.seconds, f"{ours.memory:.0f} MiB"),
        ("of which: the fetch", ours.fetch, ""),
        ("of which: the step that stores", ours.store, ""),
        ("of which: the step that publishes", ours.publish, ""),
        ("of which: a run of three empty assets", control.seconds, f"{control.memory:.0f} MiB"),
        ("of which: imports, Parquet, checks", other, ""),
        ("the plain loop, which sleeps after each", loop.seconds, f"{loop.memory:.0f} MiB"),
    ):
        yield f"| {name} | {took:.2f} | {took / FLOOR_SECONDS:.2f} | {peak} |"
    yield ""
    yield f"Without the fetch a run takes {ours.rest / control.seconds:.2f} of three empty assets."


def growth(rounds: int) -> Iterator[str]:
    """A run of one window with more instruments, in batches of the plan `pro`."""
    yield "| instruments | floor | fetch | store | publish | run without fetch | memory |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for size in SIZES:
        tickers = [f"{chr(65 + n // 1000)}{n % 1000:03}3" for n in range(size)]
        with services("pro", tickers) as settings:
            (of_size,) = measured(rounds, lambda settings=settings: pipeline(settings))
        floor = (ceil(size / BATCH) - 1) * INTERVAL + ANSWER
        yield (
            f"| {size:,} | {floor:.2f} s | {of_size.fetch:.2f} s | {of_size.store:.2f} s "
            f"| {of_size.publish:.2f} s | {of_size.rest:.2f} s | {of_size.memory:.0f} MiB |"
        )


def tables(rounds: int) -> Iterator[str]:
    """Both, row by row."""
    yield "50 instruments, one a request, every 0.5 s:\n"
    yield from parts(rounds)
    yield "\nMore instruments, in batches of 20:\n"
    yield from growth(rounds)


if __name__ == "__main__":
    for line in tables(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
