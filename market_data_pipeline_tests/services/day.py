"""A day of operation with faults, compressed: every half hour of 24 hours is a minute.

    python -m market_data_pipeline_tests.services.day [WINDOWS] [--seed N]

The processes of docker-compose.yml run on PostgreSQL, Apache Kafka, a MongoDB and the sandbox, in
the middle of a session with windows of a minute. In every second window, on average, something is
broken at a random moment for some seconds. What a real day takes longer for is shortened with it:
the time-outs of Brapi's requests and of Kafka, and the time that a run may take.

At the end no fault is left. The program says what is missing and why, does what an operator would
do in the UI, and prints what the day came to. It fails if a window is still missing, or anything
was published in part, misdated or stored twice.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from brapi_sandbox.answers import stamp
from brapi_sandbox.faults import Fault
from pymongo.uri_parser import parse_uri

from market_data_pipeline_dev.process import stop_on_signals
from market_data_pipeline_tests.deploy.set_back import MINUTE
from market_data_pipeline_tests.deploy.webserver import (
    NoAnswerError,
    Run,
    backfill_status,
    launch_backfill,
    materialized,
    messages,
    runs,
    why_it_failed,
)
from market_data_pipeline_tests.services.deployment import (
    ASSETS,
    PUBLISH_HISTORY,
    UNFINISHED,
    Bars,
    Deployment,
    Document,
    brapi,
    by_window,
    instruments_lacking,
    key_of,
    misdated,
    repeated,
    say,
    tickers_by_window,
    windows_until,
)
from market_data_pipeline_tests.services.kafka_broker import KafkaCluster
from market_data_pipeline_tests.services.mongo_engine import mongo_engine
from market_data_pipeline_tests.services.postgres import Postgres
from market_data_pipeline_tests.services.proxy import Proxy

# An hour after the opening, so that the session is longer than the day takes.
BEGINNING = datetime(2026, 11, 17, 14, 0, tzinfo=UTC)
SETTINGS = {
    "BRAPI_TIMEOUT_SECONDS": "3",
    "BRAPI_STEP_TIMEOUT_SECONDS": "25",
    "KAFKA_TIMEOUT_SECONDS": "20",
}
BRAPI_FAULTS: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "connection reset": {"reset": True},
    "JSON cut": {"body": '{"results": [{"symbol": "PE'},
    "no answer": {"delay": 8},
    "429": {"status": 429, "headers": {"Retry-After": "1"}},
}
# When a run is killed: what its log says before, and at most how many seconds later.
MOMENTS = {
    "between fetch and store": ("Ingestion completed", 0.0),
    "between store and publish": ('Finished execution of step "quotes"', 0.0),
    "while it publishes": ('Started execution of step "kafka_publication"', 0.6),
}
SECONDS_TO_AIM = 50
Action = Callable[[], object]
PROCESS = re.compile(r"\(pid: (\d+)\)")  # in the log of a run


def whole_by_itself() -> None:
    """Nothing has to be done about the fault."""


@dataclass(frozen=True)
class Services:
    """What can be broken."""

    deployment: Deployment
    kafka: KafkaCluster
    mongo: Proxy

    def faults(self) -> dict[str, tuple[Action, Action]]:
        """Each kind of fault: what breaks something, and what lets it be whole again."""
        deployment = self.deployment
        brapi_has = partial(setattr, deployment.sandbox, "faults")
        return {
            **{
                f"{name} killed": (partial(deployment.kill, name), partial(deployment.start, name))
                for name in deployment.names
            },
            "PostgreSQL crashed": (deployment.postgres.crash, whole_by_itself),
            "Kafka killed": (self.kafka.kill, self.kafka.start),
            "MongoDB unreachable": (self.mongo.cut, self.mongo.open),
            **{
                f"run killed {when}": (partial(self._kill_run, when), whole_by_itself)
                for when in MOMENTS
            },
            **{
                f"Brapi: {kind}": (partial(brapi_has, [Fault(**how)]), partial(brapi_has, []))
                for kind, how in BRAPI_FAULTS.items()
            },
        }

    def _kill_run(self, when: str) -> None:
        """Kills the process of the run that is under way, as soon as its log says so."""
        url, (sign, longest) = self.deployment.url, MOMENTS[when]
        until = time.monotonic() + SECONDS_TO_AIM
        while time.monotonic() < until:
            with contextlib.suppress(NoAnswerError, ProcessLookupError):
                for run in runs(url, 3):
                    said = messages(url, run.id) if run.status in UNFINISHED else ""
                    if sign in said and (process := PROCESS.search(said)):
                        time.sleep(random.uniform(0, longest))
                        os.kill(int(process[1]), signal.SIGKILL)
                        return
            time.sleep(0.02)


@dataclass(frozen=True)
class Injected:
    """A fault that there was."""

    kind: str
    begun: datetime
    over: datetime

    def __str__(self) -> str:
        return f"{self.kind} at {self.begun:%M:%S}, {(self.over - self.begun).seconds} s"


class Day:
    """The windows of a day, and the faults in it.

    Attributes:
        windows: where those begin that are due.
        injected: the faults that there were.
    """

    def __init__(self, services: Services, windows: int, seed: int) -> None:
        self._services, self._random = services, random.Random(seed)
        self.deployment = services.deployment
        self.injected: list[Injected] = []
        # In half of the windows there is a fault, of each kind as often as of the others.
        kinds = [*services.faults()]
        times, rest = divmod(windows // 2, len(kinds))
        faults = [*kinds * times, *self._random.sample(kinds, rest)]
        self._plan = [*faults, *[None] * (windows - len(faults))]
        self._random.shuffle(self._plan)
        first = self.deployment.now().replace(second=0, microsecond=0)
        self.windows = windows_until(first, first + windows * MINUTE)

    def pass_by(self) -> None:
        """Lives through it, and says a line a window."""
        for start, kind in zip(self.windows, self._plan, strict=True):
            due = start + MINUTE
            self._wait_until(due)
            if kind:
                # Most are early in a window's time, when its run is under way.
                self._wait_until(due + timedelta(seconds=self._random.triangular(0, 50, 4)))
                self._inject(kind)
            self._wait_until(due + MINUTE)
            there = [one for one in self.deployment.documents() if one["window_start"] == start]
            say(f"{key_of(start)}  {len(there)} documents  {self.injected[-1] if kind else ''}")

    def _inject(self, kind: str) -> None:
        begun = self.deployment.now()
        break_it, mend_it = self._services.faults()[kind]
        break_it()
        self._wait_until(begun + timedelta(seconds=self._random.uniform(2, 20)))
        mend_it()
        self.injected.append(Injected(kind, begun, self.deployment.now()))

    def _wait_until(self, instant: datetime) -> None:
        while self.deployment.now() < instant:
            self.deployment.restart_those_that_ended()
            time.sleep(0.2)

    def faults_of(self, start: datetime) -> list[Injected]:
        """The faults that there were while the window was live."""
        due = start + MINUTE
        return [one for one in self.injected if one.begun < due + MINUTE and one.over > due]


def runs_of(window: datetime, found: Sequence[Run]) -> list[Run]:
    """The runs of a window alone, the first one first."""
    return [run for run in reversed(found) if run.tags.get("dagster/partition") == key_of(window)]


def wait_for_the_retries(day: Day, quiet_seconds: float = 20) -> None:
    """Waits until no window of the day has a run under way for some time."""
    since = time.monotonic()

    def quiet(found: list[Run]) -> bool:
        nonlocal since
        if any(run.status in UNFINISHED for start in day.windows for run in runs_of(start, found)):
            since = time.monotonic()
        return time.monotonic() - since > quiet_seconds

    try:
        day.deployment.wait_for(quiet)
    except AssertionError:
        say("Runs that do not end:")
        for run in runs(day.deployment.url):
            if run.status in UNFINISHED:
                say(f"  {run}")


def parquet_rows(deployment: Deployment, start: datetime) -> int:
    """How many quotes are stored between the steps."""
    path = deployment.home.parent / "state" / "quotes" / "quotes" / f"{key_of(start)}.parquet"
    return len(pd.read_parquet(path)) if path.exists() else 0


@dataclass(frozen=True)
class Missing:
    """The windows that lack something, by what an operator does about it."""

    quotes: list[datetime]
    documents: list[datetime]

    def __contains__(self, start: object) -> bool:
        return start in self.quotes or start in self.documents


def what_is_missing(day: Day, documents: list[Document]) -> Missing:
    """What the UI says is not there, and the windows that lack instruments."""
    bars, keys = day.deployment.bars(), [key_of(start) for start in day.windows]
    quoted, stored = (materialized(day.deployment.url, asset, keys) for asset in ASSETS[:2])
    lacking = [start for start in day.windows if instruments_lacking(documents, start, bars)]
    by_hand = [start for start in day.windows if key_of(start) in quoted - stored]
    return Missing([start for start in lacking if start not in by_hand], by_hand)


def say_what_is_missing(day: Day, documents: list[Document], missing: Missing) -> None:
    """Each window that had trouble: what it has, what its runs said, what was broken."""
    url = day.deployment.url
    found = runs(url)
    runs_by_window = {start: runs_of(start, found) for start in day.windows}
    failed = [
        start
        for start in day.windows
        if start in missing or {run.status for run in runs_by_window[start]} != {"SUCCESS"}
    ]
    lacking = sum(start in missing for start in failed)
    say(f"\nRuns of {len(failed)} windows failed or never were; {lacking} windows lack something:")
    for start in failed:
        stored = sum(one["window_start"] == start for one in documents)
        faults = ", ".join(map(str, day.faults_of(start))) or "no fault"
        rows = parquet_rows(day.deployment, start)
        say(f"{key_of(start)}  {rows} quotes, {stored} documents; {faults}")
        for run in runs_by_window[start]:
            say(f"    {run.status}: {_reason(url, run)}")
        if not runs_by_window[start]:
            say("    there was no run")


def _reason(url: str, run: Run) -> str:
    said = why_it_failed(url, run.id) if run.status == "FAILURE" else []
    return " ".join(said[0].split())[:300] if said else run.id


def operate(day: Day, missing: Missing) -> None:
    """What an operator does in the UI, and waits for."""
    url = day.deployment.url
    backfills = [
        launch_backfill(url, assets, [key_of(start) for start in windows], config)
        for windows, assets, config in (
            (missing.quotes, ASSETS, PUBLISH_HISTORY),
            (missing.documents, [ASSETS[1]], {}),
        )
        if windows
    ]
    statuses: list[str] = []

    def ended(_: list[Run]) -> bool:
        statuses[:] = [backfill_status(url, one) for one in backfills]
        return not {"REQUESTED", "FAILING", "CANCELING"} & {*statuses}

    with contextlib.suppress(AssertionError):
        day.deployment.wait_for(ended)
    say(f"\nThe operator's backfills: {', '.join(statuses) or 'none'}")


class Outcome:
    """What a day came to.

    Args:
        before: the documents that were there without the operator.
        missing: what the operator repaired.
    """

    def __init__(self, day: Day, before: list[Document], missing: Missing) -> None:
        self._day, self._missing = day, missing
        bars, events = day.deployment.bars(), day.deployment.events()
        stored = [one for one in day.deployment.documents() if one["window_start"] in day.windows]
        here = {stamp(start) for start in day.windows}
        self.published = {group: n for group, n in by_window(events).items() if group[0] in here}
        self.in_part = {
            group: counts
            for group, counts in self.published.items()
            if not is_whole(group, counts, stored, bars)
        }
        self.without_events = here - {start for start, _ in self.published}
        self.ids = Counter(seen.ce_id for seen in events)
        self.misdated, self.repeated = misdated(stored, bars), repeated(stored)
        self.lacking = [start for start in day.windows if instruments_lacking(stored, start, bars)]
        self.live = {one["window_start"] for one in before if one["source"] == "live"}

    @property
    def is_bad(self) -> bool:
        """Whether anything is not as it must be."""
        return bool(self.lacking or self.in_part or self.misdated or self.repeated)

    def findings(self) -> Iterator[str]:
        """What should not be, one by one."""
        yield from (f"Still missing: {key_of(start)}" for start in self.lacking)
        yield from (f"Published in part: {group}: {n}" for group, n in self.in_part.items())
        yield from (f"Misdated: {document}" for document in self.misdated)
        yield from (f"Published {n} times: {ce_id}" for ce_id, n in self.ids.items() if n > 1)

    def table(self) -> Iterator[tuple[str, int]]:
        """What is stored and published in the end."""
        windows, missing = {*self._day.windows}, {*self._missing.quotes, *self._missing.documents}
        faults = Counter(one.kind for one in self._day.injected)
        yield "windows due", len(windows)
        yield "  stored live, by themselves", len((windows - missing) & self.live)
        yield (
            "  stored by themselves, run again after their time",
            len(windows - missing - self.live),
        )
        yield "  stored after the faults, by the operator", len(missing - {*self.lacking})
        yield "  still missing", len(self.lacking)
        yield "publications of a window's events", len(self.published)
        yield "  whole", len(self.published) - len(self.in_part)
        yield "  in part", len(self.in_part)
        yield "windows without events", len(self.without_events)
        yield "misdated documents", len(self.misdated)
        yield "duplicate documents", self.repeated
        yield "duplicate events", sum(self.ids.values()) - len(self.ids)
        yield "faults injected", len(self._day.injected)
        yield from ((f"  {kind}", number) for kind, number in sorted(faults.items()))


def is_whole(
    group: tuple[str, str], counts: Counter[str], documents: list[Document], bars: Bars
) -> bool:
    """Whether all that is stored of a window, or all that there was, is on the topic equally often.

    A run may have published all and been killed before it has stored all.
    """
    start, source = group
    stored = tickers_by_window(documents).get(group, set())
    there = {ticker for ticker in bars if source == "live" or start in map(stamp, bars[ticker])}
    return len({*counts.values()}) == 1 and counts.keys() in (stored, there)


def run_the_day(folder: Path, windows: int, seed: int, mongo_uri: str) -> Outcome:
    """All of it, on services of its own but for MongoDB."""
    (host, port) = parse_uri(mongo_uri)["nodelist"][0]
    with (
        Postgres() as postgres,
        KafkaCluster(folder / "kafka") as kafka,
        Proxy((host, port)) as mongo,
        brapi() as sandbox,
    ):
        through = mongo_uri.replace(f"{host}:{port}", f"127.0.0.1:{mongo.port}")
        settings = {**SETTINGS, "MONGO_URI": through}
        servers = kafka.bootstrap_servers
        with Deployment(
            folder, sandbox, postgres, mongo_uri, servers, BEGINNING, settings
        ) as deployment:
            deployment.start()
            deployment.wait_for_a_tick()
            day = Day(Services(deployment, kafka, mongo), windows, seed)
            day.pass_by()
            wait_for_the_retries(day)
            before = deployment.documents()
            missing = what_is_missing(day, before)
            say_what_is_missing(day, before, missing)
            operate(day, missing)
            return Outcome(day, before, missing)


def main() -> int:
    """Runs a day and prints what it came to."""
    parser = argparse.ArgumentParser(description="A day of operation with faults, compressed.")
    parser.add_argument("windows", type=int, nargs="?", default=48)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    options = parser.parse_args()
    stop_on_signals()
    folder = Path(tempfile.mkdtemp(prefix="day-"))
    say(f"{options.windows} windows, seed {options.seed}, logs in {folder}")
    with mongo_engine() as mongo_uri:
        outcome = run_the_day(folder, options.windows, options.seed, mongo_uri)
    for finding in outcome.findings():
        say(finding)
    say("")
    for name, number in outcome.table():
        say(f"{name:<52}{number:>6}")
    return int(outcome.is_bad)


if __name__ == "__main__":
    sys.exit(main())
