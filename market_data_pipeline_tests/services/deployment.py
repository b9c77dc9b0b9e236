"""The processes of production on real services, and what has to be true of their windows."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar
from unittest.mock import patch
from uuid import uuid4

import pymongo
import yaml
from brapi_sandbox import rules
from brapi_sandbox.answers import history, quote, stamp
from brapi_sandbox.market import Market
from brapi_sandbox.sandbox import Sandbox, serve

from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, KEY_FORMAT
from market_data_pipeline_tests.deploy.compose import COMPOSE, Processes
from market_data_pipeline_tests.deploy.set_back import MINUTE, SetBack
from market_data_pipeline_tests.deploy.webserver import NoAnswerError, Run, runs
from market_data_pipeline_tests.publication.helpers import Seen, read
from market_data_pipeline_tests.services.kafka_broker import KafkaCluster
from market_data_pipeline_tests.services.mongo_engine import mongo_engine
from market_data_pipeline_tests.services.postgres import Postgres
from market_data_pipeline_tests.supervised import PATIENCE_SECONDS, ROOT

# A Tuesday in the middle of a session.
BEGINNING = datetime(2026, 11, 17, 17, 0, tzinfo=UTC)
MARKET = Market()
TICKERS = {*load_watchlist().tickers}
SCHEDULE = "dagster/schedule_name"
UNFINISHED = {"QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"}
# Ten minutes are more than a test wants to wait for.
IMPATIENT = {"run_monitoring": {"max_runtime_seconds": 120, "poll_interval_seconds": 2}}
ASSETS = ["quotes", "mongo_price_history", "kafka_publication"]
PUBLISH_HISTORY = {"ops": {"kafka_publication": {"config": {"publish_history": True}}}}

Found = TypeVar("Found")
Document = dict[str, Any]
Bars = Mapping[str, Mapping[datetime, Mapping[str, Any]]]


@contextmanager
def brapi(market: Market = MARKET) -> Iterator[Sandbox]:
    """A sandbox that answers with what was known at the last full minute."""
    at_once = dataclasses.replace(rules.PLANS["pro"], refresh_minutes=1)
    with patch.dict(rules.PLANS, pro=at_once), serve(plan="pro", market=market) as sandbox:
        yield sandbox


class Operated:
    """A pipeline in operation: its webserver, its database and its topic."""

    url: str
    mongo_uri: str
    database: str
    kafka: str
    topic: str

    def watch(self) -> None:
        """What has to be done all the time, while something is waited for."""
        raise NotImplementedError

    def state(self) -> list[str]:
        """What helps to see why something did not happen, beside the runs."""
        return []

    def wait_for(self, what: Callable[[list[Run]], Found | None]) -> Found:
        """Waits until something can be said of the runs, and returns it."""
        patience = time.monotonic() + 2 * PATIENCE_SECONDS
        found: list[Run] = []
        while time.monotonic() < patience:
            self.watch()
            try:
                found = runs(self.url)
                if answer := what(found):
                    return answer
            except NoAnswerError:
                pass
            time.sleep(0.5)
        raise AssertionError("\n".join(map(str, [*self.state(), *found])))

    def documents(self) -> list[Document]:
        """All that is stored."""
        with pymongo.MongoClient[Document](self.mongo_uri, tz_aware=True) as client:
            return [*client[self.database]["price_history"].find()]

    def events(self) -> list[Seen]:
        """All that a consumer of committed events sees."""
        return read(self.kafka, self.topic)


class Deployment(Processes, Operated):
    """The processes with the services around them; a context manager that leaves nothing behind.

    Args:
        folder: holds their state and logs.
        beginning: what time it is for the pipeline and for Brapi when this is made.
        settings: variables of the code location that differ from those here.
        instance: what differs from `deploy/dagster.yaml`.
        services: of compose.
        window: how long a window is.
    """

    def __init__(
        self,
        folder: Path,
        sandbox: Sandbox,
        postgres: Postgres,
        mongo_uri: str,
        kafka: str,
        beginning: datetime = BEGINNING,
        settings: Mapping[str, str] | None = None,
        instance: Mapping[str, Any] = IMPATIENT,
        services: Mapping[str, Any] = COMPOSE["services"],
        window: timedelta = MINUTE,
    ) -> None:
        self.sandbox, self.postgres, self.kafka = sandbox, postgres, kafka
        self.mongo_uri, self.database = mongo_uri, f"production_{uuid4().hex[:8]}"
        self.topic = self.database
        self.beginning = beginning
        self.clock = SetBack(beginning, window)
        self.now = sandbox.now = self.clock.now
        whole = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
        whole |= {name: {**whole[name], **part} for name, part in instance.items()}
        (folder / "state").mkdir()
        ours = {
            "MARKET_DATA_STATE": str(folder / "state"),
            "QUOTES_PATH": str(folder / "state" / "quotes"),
            **postgres.settings,
            "BRAPI_BASE_URL": sandbox.url,
            "BRAPI_TOKEN": "token-of-the-tests",
            "BRAPI_PLAN": "pro",
            "BRAPI_MIN_INTERVAL_SECONDS": "0.01",
            "PUBLISH_MADE_UP_PRICES": "true",
            "MONGO_URI": mongo_uri,
            "MONGO_DB": self.database,
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "KAFKA_TOPIC": self.topic,
            **self.clock.settings,
            "NO_PROXY": "127.0.0.1",
            **(settings or {}),
        }
        module = "market_data_pipeline_tests.deploy.minutes"
        super().__init__(folder / "home", yaml.safe_dump(whole), ours, module, services)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        with pymongo.MongoClient[Document](self.mongo_uri) as client:
            client.drop_database(self.database)

    def start(self, *names: str) -> None:
        """Starts these processes, or all; the logs of those that ran before are kept."""
        for name in names:
            log = self.home.parent / f"{name}.log"
            if log.exists():
                log.rename(log.with_suffix(f".until-{self.now():%H%M%S}.log"))
        super().start(*names)

    def watch(self) -> None:
        self.restart_those_that_ended()

    def wait_for_the_first_run(self) -> None:
        """Waits until a run has succeeded."""
        self.wait_for(lambda runs: any(run.status == "SUCCESS" for run in runs))

    def wait_for_a_tick(self) -> None:
        """Waits until one more run of the schedule has succeeded."""
        earlier: set[str] | None = None

        def succeeded(runs: list[Run]) -> bool:
            nonlocal earlier
            found = {run.id for run in runs if run.status == "SUCCESS" and SCHEDULE in run.tags}
            earlier = found if earlier is None else earlier
            return found > earlier

        self.wait_for(succeeded)

    def wait_for_a_request(self) -> None:
        """Waits until a run asks Brapi, which keeps it waiting from now on."""
        self.sandbox.latency = 4
        asked = len(self.sandbox.requests)
        self.wait_for(lambda _: len(self.sandbox.requests) > asked)

    def bars(self) -> Bars:
        """The bars of the day by ticker and beginning, as Brapi has them now."""
        day, now = self.beginning.date(), self.now()
        return {
            ticker: {
                datetime.fromtimestamp(bar["date"], UTC): bar
                for bar in history(MARKET, ticker, now, (day, day), "1m")
            }
            for ticker in TICKERS
        }


@contextmanager
def deployed(sandbox: Sandbox, **options: Any) -> Iterator[Deployment]:
    """A deployment with services of its own, not started yet; the options are `Deployment`'s."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mongo_engine() as mongo_uri,
        Postgres() as postgres,
        KafkaCluster(Path(folder) / "kafka") as kafka,
        Deployment(
            Path(folder), sandbox, postgres, mongo_uri, kafka.bootstrap_servers, **options
        ) as deployment,
    ):
        yield deployment


def windows_until(first: datetime, end: datetime) -> list[datetime]:
    """Where every window begins, from the first to the last one that has ended."""
    return [first + n * MINUTE for n in range((end - first) // MINUTE)]


def key_of(start: datetime) -> str:
    """The partition of the window that begins then."""
    return start.astimezone(EXCHANGE_TIMEZONE).strftime(KEY_FORMAT)


def repeated(documents: list[Document]) -> int:
    """How many documents there are beyond one for each ticker and window."""
    return len(documents) - len({(one["ticker"], one["window_start"]) for one in documents})


def misdated(documents: list[Document], bars: Bars) -> list[Document]:
    """Those that are not as Brapi said of their window."""
    return [one for one in documents if not _is_right(one, bars)]


def _is_right(document: Document, bars: Bars) -> bool:
    if document["source"] == "live":
        return _is_right_live(document)
    bar = bars[document["ticker"]].get(document["window_start"])
    return bar is not None and document["price"] == bar["close"]


def _is_right_live(document: Document) -> bool:
    """Whether it is the last trade of when it was asked, and that was while its window was live."""
    observed, traded = document["observed_at"], document["updated_at"]
    said = quote(MARKET, document["ticker"], traded + timedelta(seconds=1))
    # The sandbox answers with what was known at the last full minute.
    known = observed.replace(second=0, microsecond=0) - MINUTE
    earlier = quote(MARKET, document["ticker"], known)
    return bool(
        document["window_end"] <= observed < document["window_end"] + MINUTE
        and said["regularMarketTime"] == stamp(traded) >= earlier["regularMarketTime"]
        and document["price"] == said["regularMarketPrice"]
        and document["volume"] == said["regularMarketVolume"]
    )


def instruments_lacking(documents: list[Document], start: datetime, bars: Bars) -> set[str]:
    """The tickers that were traded in the window and that it does not have."""
    stored = {one["ticker"] for one in documents if one["window_start"] == start}
    return {ticker for ticker in TICKERS if start in bars[ticker]} - stored


def by_window(events: list[Seen]) -> dict[tuple[str, str], Counter[str]]:
    """How often each ticker is there, by the window's start and the source of its quotes."""
    published: dict[tuple[str, str], Counter[str]] = {}
    for seen in events:
        headers = {name: value.decode() for name, value in seen.event.headers}
        group = headers["ce_windowstart"], headers["ce_quotesource"]
        published.setdefault(group, Counter())[seen.event.key.decode()] += 1
    return published


def tickers_by_window(documents: list[Document]) -> dict[tuple[str, str], set[str]]:
    """The tickers that are stored, by the window's start and the source of its quotes."""
    stored: dict[tuple[str, str], set[str]] = {}
    for one in documents:
        stored.setdefault((stamp(one["window_start"]), one["source"]), set()).add(one["ticker"])
    return stored


def say(text: object) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
