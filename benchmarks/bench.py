"""Everything that is measured, as one page: `make bench` writes docs/benchmarks.md.

    python -m benchmarks.bench [ROUNDS]

It takes an hour. What needs Apache Kafka is measured where there are Java and Maven. The library
dagster-mongo has benchmarks of its own.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version

from benchmarks.stand_ins import REPOSITORY

PAGE = REPOSITORY / "docs" / "benchmarks.md"
WINDOWS_OF_THREE_MONTHS = 63 * 16
PACKAGES = ("dagster", "pandas", "pymongo", "confluent-kafka", "SQLAlchemy")


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


def on_kafka(measured: Iterator[str]) -> Iterator[str]:
    """What is measured on Apache Kafka."""
    if shutil.which("java") and shutil.which("mvn"):
        yield from measured
    else:
        yield "Not measured: Java and Maven are needed."


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
        "In operation: from the end of a window to the topic\n\n"
        "`python -m benchmarks.operation`: `dagster dev` with its daemon, medians of 10 windows.": (
            lambda: table_of("-m", "benchmarks.operation")
        ),
        "A run in a new process\n\n"
        "`python -m benchmarks.cold_run`: all of a run, with the start of its process.": (
            lambda: table_of("-m", "benchmarks.cold_run", str(rounds))
        ),
        "The fetch beside its floor\n\n"
        "`python -m benchmarks.fetch`: the floor is the intervals between 50 requests, and an "
        "answer.": lambda: output_of("-m", "benchmarks.fetch", str(rounds)),
        "100,000 events to Apache Kafka\n\n"
        "`python -m benchmarks.kafka_publication`: `bare` is the same client without the "
        "publisher, `plain` a producer that does not check whether an event arrived.": (
            lambda: on_kafka(output_of("-m", "benchmarks.kafka_publication"))
        ),
        "A consumer that starts cold\n\n"
        "`python -m benchmarks.cold_consumer`: seconds until a new consumer group, which starts at "
        "`earliest`, has the last price of each of 50 tickers.": (
            lambda: on_kafka(table_of("-m", "benchmarks.cold_consumer"))
        ),
        f"A backfill of three months: {WINDOWS_OF_THREE_MONTHS:,} windows of 50 instruments\n\n"
        "`python -m benchmarks.history`: without the fetch.": (
            lambda: output_of("-m", "benchmarks.history", str(WINDOWS_OF_THREE_MONTHS))
        ),
    }
    with PAGE.open("w") as page:

        def write(line: str = "") -> None:
            for out in (page, sys.stdout):
                out.write(f"{line}\n")
                out.flush()

        write("# Benchmarks\n")
        write(f"`make bench` writes this page; medians of {rounds}. {machine()}")
        for title, lines in sections.items():
            write(f"\n## {title}\n")
            for line in lines():
                write(line)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
