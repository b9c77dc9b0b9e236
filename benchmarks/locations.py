"""Ten code locations on one instance, each with 50 instruments: an hour of short windows.

    python -m benchmarks.locations [WINDOWS] [--minutes N] [--locations N]

The processes of docker-compose.yml, with as many code locations, run on PostgreSQL, Apache Kafka, a
MongoDB and the sandbox, on the plan `pro`: three requests a location and window, one every 0.5 s.
It prints how long after a window's end its runs began and ended, the windows that are missing, and
what the processes weigh.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from brapi_sandbox.answers import stamp
from brapi_sandbox.market import Market

from benchmarks.memory import memory
from market_data_pipeline_dev.process import stop_on_signals
from market_data_pipeline_tests.deploy.compose import COMPOSE
from market_data_pipeline_tests.deploy.webserver import Run, runs
from market_data_pipeline_tests.services.deployment import (
    BEGINNING,
    SCHEDULE,
    Deployment,
    brapi,
    by_window,
    deployed,
    key_of,
    repeated,
    say,
)

INSTRUMENTS = 50
LOCATION, PARTITION = "dagster/code_location", "dagster/partition"
WORKSPACE = "deploy/locations.yaml"
SECONDS_BETWEEN_LOOKS = 10


def names_of(count: int) -> list[str]:
    """The services of the code locations."""
    return ["code-location", *(f"code-location-{n}" for n in range(2, count + 1))]


def services_of(names: Sequence[str]) -> dict[str, Any]:
    """The services of compose with these code locations."""
    services = dict(COMPOSE["services"])
    for name in ("webserver", "daemon"):
        command = [
            WORKSPACE if word == "deploy/workspace.yaml" else word
            for word in services[name]["command"]
        ]
        services[name] = {**services[name], "command": command}
    location = services["code-location"]
    files = location["env_file"]
    return services | {
        name: {**location, "env_file": [*files, f"deploy/{name}.env"]} for name in names
    }


def tickers_of(number: int) -> list[str]:
    """The instruments of a code location, which no other has."""
    return [f"{chr(65 + number)}{n:03}3" for n in range(INSTRUMENTS)]


def configure(deployment: Deployment, names: Sequence[str]) -> None:
    """Writes what the code locations read, and the workspace with all of them."""
    for number, name in enumerate(names):
        settings = {
            "ASSET_KEY_PREFIX": name.replace("-", "_"),
            "WATCHLIST_FILE": f"deploy/{name}.csv",
            "BRAPI_QUOTA_SHARE": f"{1 / len(names):.3f}",
        }
        folder = deployment.home / "deploy"
        lines = [f"{key}={value}" for key, value in settings.items()]
        (folder / f"{name}.env").write_text("\n".join(lines))
        (folder / f"{name}.csv").write_text("\n".join(["ticker", *tickers_of(number)]))
    servers = [
        {"host": "127.0.0.1", "port": int(deployment.ports[name]), "location_name": name}
        for name in names
    ]
    workspace = {"load_from": [{"grpc_server": server} for server in servers]}
    (deployment.home / WORKSPACE).write_text(yaml.safe_dump(workspace))


def busy_and_all() -> tuple[int, int]:
    """The ticks that the processors worked, and all, since the machine is up."""
    ticks = [*map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def operate(
    deployment: Deployment, names: Sequence[str], count: int, length: timedelta
) -> tuple[list[datetime], list[Run]]:
    """Lets it run: where so many windows begin, and all runs of the schedules."""

    def all_have_run(found: list[Run]) -> bool:
        done = {run.tags[LOCATION] for run in found if SCHEDULE in run.tags and run.ended}
        return done == {*names}

    deployment.start()
    deployment.wait_for(all_have_run)
    started = deployment.now()
    windows = [started - (started - BEGINNING) % length + n * length for n in range(count)]
    worked, passed = busy_and_all()
    heaviest: Counter[str] = Counter()
    # The runs of a window end before that of the next one.
    while deployment.now() < windows[-1] + 2 * length:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        deployment.restart_those_that_ended()
        heaviest |= memory()
    now_worked, now_passed = busy_and_all()
    say(f"processors busy: {(now_worked - worked) / (now_passed - passed):.0%}")
    for name, now in memory().items():
        most = max(now, heaviest[name])
        say(f"{name}: {now / 2**20:.0f} MiB at the end, at most {most / 2**20:.0f}")
    found = [run for run in runs(deployment.url) if SCHEDULE in run.tags]
    return windows, found


def seconds_after(ends: Mapping[str, float], found: Sequence[Run]) -> dict[str, list[float]]:
    """How long after the ends of their windows, by partition, the runs began and ended."""
    ours = [run for run in found if run.tags[PARTITION] in ends]
    say(f"runs by status: {dict(Counter(run.status for run in ours))}")
    return {
        "began": [run.began - ends[run.tags[PARTITION]] for run in ours if run.began],
        "ended": [run.ended - ends[run.tags[PARTITION]] for run in ours if run.ended],
    }


def say_the_seconds(moments: Mapping[str, Sequence[float]]) -> None:
    """The quantiles."""
    for name, seconds in moments.items():
        middle, most = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
        say(
            f"runs {name}, seconds after the window's end: median {middle:.1f}, "
            f"19 of 20 within {most:.1f}, the last {max(seconds):.1f}"
        )


def say_what_is_missing(
    deployment: Deployment, windows: Sequence[datetime], names: Sequence[str]
) -> None:
    """The windows that are not stored live, or not published, whole."""
    documents = deployment.documents()
    live = {(one["window_start"], one["ticker"]) for one in documents if one["source"] == "live"}
    published = by_window(deployment.events())
    due = [(window, tickers_of(n)) for window in windows for n in range(len(names))]
    stored = sum(all((window, ticker) in live for ticker in tickers) for window, tickers in due)
    sent = sum(
        published.get((stamp(window), "live"), Counter()).keys() >= {*tickers}
        for window, tickers in due
    )
    say(f"windows due: {len(due)}, stored live whole: {stored}, published whole: {sent}")
    twice = sum(times > 1 for tickers in published.values() for times in tickers.values())
    say(f"documents stored twice: {repeated(documents)}, events published twice: {twice}")


def main() -> None:
    """Operates it and prints what it came to."""
    parser = argparse.ArgumentParser(description="Many code locations on one instance.")
    parser.add_argument("windows", type=int, nargs="?", default=30)
    parser.add_argument("--minutes", type=int, default=2, help="the length of a window")
    parser.add_argument("--locations", type=int, default=10)
    options = parser.parse_args()
    stop_on_signals()
    names, length = names_of(options.locations), timedelta(minutes=options.minutes)
    tickers = [ticker for number in range(len(names)) for ticker in tickers_of(number)]
    with (
        brapi(Market(tickers)) as sandbox,
        deployed(
            sandbox,
            settings={"BRAPI_MIN_INTERVAL_SECONDS": "0.5"},
            instance={},
            services=services_of(names),
            window=length,
        ) as deployment,
    ):
        sandbox.latency = 0.15
        sandbox.quota_header = "x-unknown"  # for windows this short, the quota would be paced
        configure(deployment, names)
        windows, found = operate(deployment, names, options.windows, length)
        behind = time.time() - deployment.now().timestamp()
        ends = {key_of(start): (start + length).timestamp() + behind for start in windows}
        say_the_seconds(seconds_after(ends, found))
        say_what_is_missing(deployment, windows, names)


if __name__ == "__main__":
    main()
