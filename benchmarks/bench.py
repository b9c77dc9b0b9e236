"""Everything that is measured, as one page: `make bench` writes docs/benchmarks.md.

    python -m benchmarks.bench [ROUNDS]

It takes some minutes. The bulk store is measured on the server that TEST_MONGO_URI names, and
without it on the embedded one; the publication on Apache Kafka where there are Java and Maven.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from math import ceil
from pathlib import Path
from statistics import median

from benchmarks.fetch import sandbox
from benchmarks.run_overhead import FLOOR_SECONDS, REPOSITORY, Figures, run
from market_data_pipeline.watchlist import load_watchlist
from market_data_pipeline_dev.kafka import embedded_kafka
from market_data_pipeline_dev.mongo import embedded_mongo

PAGE = REPOSITORY / "docs" / "benchmarks.md"
PIPELINE = "market_data_pipeline.definitions"
ANSWER, INTERVAL = 0.15, 0.5
# Sizes of a watchlist, and tickers in one request of the plan `pro`.
SIZES, BATCH = (50, 500, 2000), 20
WINDOWS_OF_THREE_MONTHS = 63 * 16
PACKAGES = ("dagster", "pandas", "pymongo", "confluent-kafka", "SQLAlchemy")


@contextmanager
def services(plan: str) -> Iterator[dict[str, str]]:
    """The settings of a run against a sandbox and the stand-ins, all in processes of their own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        sandbox(plan, ANSWER) as url,
        embedded_kafka() as bootstrap_servers,
        embedded_mongo(Path(folder)) as mongo_uri,
    ):
        yield {
            "BRAPI_BASE_URL": url,
            "BRAPI_TOKEN": "benchmark",
            "BRAPI_PLAN": plan,
            "BRAPI_MIN_INTERVAL_SECONDS": str(INTERVAL),
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "MONGO_URI": mongo_uri,
            "QUOTES_PATH": f"{folder}/quotes",
            "PYTHONPATH": str(Path(__file__).parent),
        }


def plain(env: dict[str, str]) -> Figures:
    """One round of the plain pattern, in a process of its own."""
    addresses = [env["BRAPI_BASE_URL"], env["MONGO_URI"], env["KAFKA_BOOTSTRAP_SERVERS"]]
    tickers = [instrument.ticker for instrument in load_watchlist()]
    command = [sys.executable, "benchmarks/plain.py", *addresses, str(INTERVAL), *tickers]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=REPOSITORY)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("The plain pattern has failed.")
    return Figures(time.monotonic() - started, usage.ru_maxrss / 1024)


def measured(rounds: int, contestants: dict[str, Callable[[], Figures]]) -> dict[str, Figures]:
    """The medians of each, which take turns."""
    results: dict[str, list[Figures]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, measure in contestants.items():
            results[name].append(measure())
    return {
        name: Figures(*(median(values) for values in zip(*figures, strict=True)))
        for name, figures in results.items()
    }


def tick(rounds: int) -> Iterator[str]:
    """A run of one window, in parts, beside the plain pattern and the least that it can take."""
    with services("free") as env:
        medians = measured(
            rounds,
            {
                "pipeline": lambda: run(PIPELINE, env),
                "empty": lambda: run("empty", env),
                "plain": lambda: plain(env),
            },
        )
    ours, empty, loop = medians["pipeline"], medians["empty"], medians["plain"]
    other = ours.rest - empty.seconds - ours.store - ours.publish
    yield "| | seconds | of the floor | peak memory |"
    yield "| --- | ---: | ---: | ---: |"
    yield f"| floor: 49 intervals and an answer | {FLOOR_SECONDS:.2f} | 1.00 | |"
    for name, took, peak in (
        ("**a run of the pipeline**", ours.seconds, f"{ours.memory:.0f} MiB"),
        ("of which: the fetch", ours.fetch, ""),
        ("of which: the step that stores", ours.store, ""),
        ("of which: the step that publishes", ours.publish, ""),
        (
            "of which: Dagster: a run of three empty assets",
            empty.seconds,
            f"{empty.memory:.0f} MiB",
        ),
        ("of which: imports, Parquet, checks", other, ""),
        ("the plain loop, which sleeps after each", loop.seconds, f"{loop.memory:.0f} MiB"),
    ):
        yield f"| {name} | {took:.2f} | {took / FLOOR_SECONDS:.2f} | {peak} |"
    yield ""
    yield f"Without the fetch a run takes {ours.rest / empty.seconds:.2f} of three empty assets."


def growth(rounds: int) -> Iterator[str]:
    """A run of one window with more instruments, in batches of the plan `pro`."""
    yield "| instruments | floor | fetch | store | publish | run without fetch | memory |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            watchlist = Path(folder, "watchlist.csv")
            tickers = (f"{chr(65 + n // 1000)}{n % 1000:03}3" for n in range(size))
            watchlist.write_text("\n".join(["ticker", *tickers]))
            os.environ["WATCHLIST_FILE"] = str(watchlist)  # of the sandbox and of the run
            with services("pro") as env:
                figures = measured(rounds, {"run": lambda env=env: run(PIPELINE, env)})["run"]
            del os.environ["WATCHLIST_FILE"]
        floor = (ceil(size / BATCH) - 1) * INTERVAL + ANSWER
        yield (
            f"| {size:,} | {floor:.2f} s | {figures.fetch:.2f} s | {figures.store:.2f} s "
            f"| {figures.publish:.2f} s | {figures.rest:.2f} s | {figures.memory:.0f} MiB |"
        )


def table_of(*command: str) -> Iterator[str]:
    """What another benchmark prints."""
    ended = subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True
    )
    if ended.returncode:
        sys.exit(ended.stderr)
    yield from ended.stdout.splitlines()


def output_of(*command: str) -> Iterator[str]:
    """What another benchmark prints, as it is."""
    yield "```text"
    yield from table_of(*command)
    yield "```"


def publication() -> Iterator[str]:
    """Events on Apache Kafka, beside the bare client."""
    if shutil.which("java") and shutil.which("mvn"):
        yield from output_of("-m", "benchmarks.kafka_publication")
    else:
        yield "Not measured: Java and Maven are needed."


def bulk_store(rounds: int) -> Iterator[str]:
    """Documents in MongoDB, beside plain pymongo."""
    script = "libraries/dagster-mongo/benchmarks/measure.py"
    if uri := os.environ.get("TEST_MONGO_URI"):
        yield "On a real MongoDB."
        yield from output_of(script, uri, "--rounds", str(rounds))
        return
    yield "On the embedded stand-in."
    with tempfile.TemporaryDirectory() as folder, embedded_mongo(Path(folder)) as uri:
        yield from output_of(script, uri, "--rounds", str(rounds))


def machine() -> str:
    """What kind of machine this is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}, {packages}; load {os.getloadavg()[0]:.1f} at the "
        "start."
    )


def main(rounds: int) -> None:
    """Writes the page, section by section, and shows it as it grows."""
    sections: dict[str, Callable[[], Iterator[str]]] = {
        "In operation: from the end of a window to the topic": (
            lambda: table_of("-m", "benchmarks.operation", str(rounds))
        ),
        "A run of a window: 50 instruments, one a request, every 0.5 s, answers after 150 ms": (
            lambda: tick(rounds)
        ),
        "More instruments": lambda: growth(rounds),
        "The fetch beside its floor": lambda: output_of("-m", "benchmarks.fetch", str(rounds)),
        "100,000 events to Apache Kafka": publication,
        "100,000 documents to MongoDB": lambda: bulk_store(rounds),
        f"A backfill of three months: {WINDOWS_OF_THREE_MONTHS:,} windows of 50 instruments": (
            lambda: output_of("-m", "benchmarks.history", str(WINDOWS_OF_THREE_MONTHS))
        ),
    }
    with PAGE.open("w") as page:

        def write(line: str = "") -> None:
            for out in (page, sys.stdout):
                out.write(f"{line}\n")
                out.flush()

        write("# Benchmarks\n")
        write(f"`make bench` wrote this page; medians of {rounds}. {machine()}")
        for title, lines in sections.items():
            write(f"\n## {title}\n")
            for line in lines():
                write(line)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
