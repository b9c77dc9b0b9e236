"""The pipeline for tests: real sockets, real files, and a clock that can be set."""

import importlib
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import dagster as dg
import pymongo
import pytest
from brapi_sandbox.sandbox import Sandbox, serve
from dagster._core.storage.event_log import in_memory as event_log_in_memory
from dagster._core.storage.runs import in_memory as runs_in_memory
from sqlalchemy import Engine, event

from market_data_pipeline.brapi.client import Brapi
from market_data_pipeline.market import clock
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE
from market_data_pipeline.settings import Settings, settings
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline_dev.kafka import embedded_kafka
from market_data_pipeline_dev.mongo import embedded_mongo
from market_data_pipeline_tests.publication.helpers import Seen, read
from market_data_pipeline_tests.services.kafka_broker import (
    KafkaCluster,
    ServiceUnavailableError,
    class_path,
)
from market_data_pipeline_tests.services.mongo_engine import mongo_engine
from market_data_pipeline_tests.services.postgres import Postgres
from market_data_pipeline_tests.supervised import OURS

TOKEN = "token-of-the-tests"
DATABASE = "market_data_db"
# A Tuesday in the middle of a session; the window 14:30 to 15:00 is live.
TUESDAY_15_00 = datetime(2026, 11, 17, 18, 0, 5, tzinfo=UTC)
LIVE_ON_TUESDAY = "2026-11-17T14:30-0300"
INSTRUMENTS = ("PETR4", "BBAS3", "HGLG11", "VALE3")
IN_FILES = """
storage: {sqlite: {base_dir: HOME}}
compute_logs:
  module: dagster._core.storage.local_compute_log_manager
  class: LocalComputeLogManager
  config: {base_dir: HOME/logs}
python_logs: {dagster_handler_config: {handlers: {file: {
  class: logging.FileHandler, level: DEBUG, filename: HOME/dagster.log}}}}
telemetry: {enabled: false}
"""

SetClock = Callable[[datetime], None]
ChangeSettings = Callable[..., None]
SetWatchlist = Callable[[Iterable[str]], None]
LoadDefinitions = Callable[..., ModuleType]


def at(local: str) -> datetime:
    """An instant in UTC, given as local time in São Paulo."""
    return datetime.fromisoformat(local).replace(tzinfo=EXCHANGE_TIMEZONE).astimezone(UTC)


def tags_of(first: str, last: str | None = None) -> dict[str, str]:
    """The tags of a run for a partition, for all from `first` to `last`, or without any.

    Dagster does not check them: a run may be launched before its window has ended.
    """
    if last:
        ends = {"start": first, "end": last}
        return {f"dagster/asset_partition_range_{end}": key for end, key in ends.items()}
    return {"dagster/partition": first} if first else {}


@dataclass
class Pipeline:
    """The three assets with their checks, against services of their own."""

    sandbox: Sandbox
    mongo_uri: str
    bootstrap_servers: str
    folder: Path
    topic: str
    instance: dg.DagsterInstance
    brapi: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from those of a test: BRAPI_…, by the rest of the name."""
    kafka: dict[str, Any] = field(default_factory=dict)
    """The same of KAFKA_…."""
    publish_made_up_prices: bool = True

    @property
    def store(self) -> QuoteStore:
        """The Parquet files."""
        return QuoteStore(path=str(self.folder), publish_made_up_prices=self.publish_made_up_prices)

    def settings(self) -> Settings:
        brapi = {
            "base_url": self.sandbox.url,
            "token": TOKEN,
            "plan": self.sandbox.plan,
            "min_interval_seconds": 0.002,
            **self.brapi,
        }
        kafka = {
            "bootstrap_servers": self.bootstrap_servers,
            "topic": self.topic,
            **self.kafka,
        }
        return Settings(
            **{f"brapi_{name}": value for name, value in brapi.items()},
            **{f"kafka_{name}": value for name, value in kafka.items()},
            mongo_uri=self.mongo_uri,
            quotes_path=str(self.folder),
            publish_made_up_prices=self.publish_made_up_prices,
        )

    def definitions(self) -> dg.Definitions:
        # Imported here: a test may have changed the settings.
        from market_data_pipeline.definitions import ASSETS, resources
        from market_data_pipeline.quotes.checks import check_record

        return dg.Definitions(
            assets=ASSETS,
            asset_checks=[check_record],
            resources=resources(self.settings()),
            executor=dg.in_process_executor,
        )

    def run(
        self,
        first: str,
        last: str | None = None,
        *,
        select: str = "*",
        config: Mapping[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """A run of the assets for one window, for all from `first` to `last`, or without any."""
        job = dg.define_asset_job("everything", selection=select)
        definitions = dg.Definitions.merge(self.definitions(), dg.Definitions(jobs=[job]))
        return definitions.resolve_job_def("everything").execute_in_process(
            instance=self.instance,
            run_config={"ops": {name: {"config": each} for name, each in (config or {}).items()}},
            raise_on_error=False,
            tags=tags_of(first, last),
        )

    @contextmanager
    def without_kafka(self) -> Iterator[None]:
        """Nobody answers at the address of the brokers."""
        there = self.kafka, self.bootstrap_servers
        self.kafka, self.bootstrap_servers = {"timeout_seconds": 1.0}, "127.0.0.1:1"
        yield
        self.kafka, self.bootstrap_servers = there

    def documents(self, query: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """What the collection holds, by `_id`; dates in UTC."""
        with pymongo.MongoClient[dict[str, Any]](self.mongo_uri, tz_aware=True) as client:
            found = client[DATABASE]["price_history"].find(dict(query or {}))
            return sorted(found, key=lambda document: str(document["_id"]))

    def events(self) -> list[Seen]:
        """What a consumer can see on the topic."""
        return read(self.bootstrap_servers, self.topic)


def brapi_with(**given: Any) -> Brapi:
    """Brapi with settings that are given by the rest of their names: BRAPI_TOKEN as `token`."""
    return Brapi(Settings(**{f"brapi_{name}": value for name, value in given.items()}))


@event.listens_for(Engine, "connect")
def do_not_wait_for_the_disk(connection: Any, _: object) -> None:
    """Dagster's SQLite files need not survive a power failure."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


_STARTS: dict[tuple[int, str], tuple[object, datetime]] = {}
_start_of = dg.TimeWindowPartitionsDefinition.start_time_for_partition_key


def start_of_once(partitions: dg.TimeWindowPartitionsDefinition, key: str) -> datetime:
    """What Dagster computes from all holidays, twelve times a run, for the same few keys."""
    at = id(partitions), key
    if at not in _STARTS:
        _STARTS[at] = partitions, _start_of(partitions, key)
    return _STARTS[at][1]


dg.TimeWindowPartitionsDefinition.start_time_for_partition_key = start_of_once  # type: ignore[assignment,method-assign]

# An instance in memory is never migrated: to record its version takes as long as to make it.
for in_memory in (event_log_in_memory, runs_in_memory):
    in_memory.stamp_alembic_rev = lambda *_: None  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def settings_of_this_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings are read anew in each test, and are nobody's own."""
    for name in filter(OURS.match, [*os.environ]):
        monkeypatch.delenv(name)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    with embedded_kafka() as servers:
        yield servers


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_mongo(tmp_path_factory.mktemp("mongo")) as uri:
        yield uri


@pytest.fixture
def mongo_uri(mongo_server: str) -> Iterator[str]:
    """The server, with nothing in it."""
    yield mongo_server
    with pymongo.MongoClient[dict[str, Any]](mongo_server) as client:
        database = client[DATABASE]
        for name in database.list_collection_names():
            database.drop_collection(name)


@pytest.fixture
def topic() -> str:
    """The name of a topic that no other test uses."""
    return f"topic-{uuid4().hex}"


@pytest.fixture(scope="session")
def kafka_services() -> None:
    """Passes where Apache Kafka can be run: asked for, and with Java and its jars at hand."""
    if os.environ.get("REQUIRE_SERVICES") != "1":
        pytest.skip("needs Apache Kafka: run `make test-services`")
    try:
        class_path()
    except ServiceUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"Apache Kafka cannot be run: {error}")
        pytest.skip(f"Apache Kafka cannot be run: {error}")


@pytest.fixture(scope="session")
def kafka(kafka_services: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real broker that tests do no harm to."""
    if given := os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    with KafkaCluster(tmp_path_factory.mktemp("kafka") / "cluster") as cluster:
        yield cluster.bootstrap_servers


@pytest.fixture
def postgres(kafka_services: None) -> Iterator[Postgres]:
    """A PostgreSQL that the test may crash."""
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def real_mongo(kafka_services: None) -> Iterator[str]:
    """The address of a real MongoDB."""
    with mongo_engine() as uri:
        yield uri


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Sets the pipeline's clock, which then stands still."""

    def set_to(instant: datetime) -> None:
        monkeypatch.setattr(clock, "utc_now", lambda: instant)

    return set_to


@pytest.fixture
def instance_in_files(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose events and logs, also those of its runs, are in `home`."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(IN_FILES.replace("HOME", str(home)))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def watchlist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetWatchlist:
    """Sets the watchlist: what holds for a few instruments holds for fifty, in less time."""

    def watch(tickers: Iterable[str]) -> None:
        path = tmp_path / "watchlist.csv"
        path.write_text("\n".join(["ticker", *tickers]) + "\n")
        monkeypatch.setenv("WATCHLIST_FILE", str(path))

    return watch


@pytest.fixture
def four_instruments(watchlist: SetWatchlist) -> tuple[str, ...]:
    """Makes the watchlist four instruments long."""
    watchlist(INSTRUMENTS)
    return INSTRUMENTS


@pytest.fixture
def load_definitions(monkeypatch: pytest.MonkeyPatch) -> LoadDefinitions:
    """Loads the module of the definitions as a new process would, with these settings."""

    def load(**environment: str) -> ModuleType:
        forget_imports(monkeypatch, environment)
        return importlib.import_module("market_data_pipeline.definitions")

    return load


@pytest.fixture
def change_settings(monkeypatch: pytest.MonkeyPatch) -> ChangeSettings:
    """Lets the next runs have these settings too, as after a start with another environment."""

    def change(**environment: str) -> None:
        forget_imports(monkeypatch, environment, but="market_data_pipeline.market.clock")

    return change


def forget_imports(
    monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], but: str = ""
) -> None:
    """Lets the package be imported anew, all modules `but` one, in another environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in [each for each in sys.modules if each.split(".")[0] == "market_data_pipeline"]:
        if name != but:
            monkeypatch.delitem(sys.modules, name)


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAGSTER_HOME without records. To copy it takes a quarter of the time to make it."""
    home = tmp_path_factory.mktemp("new-home")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs()
        instance.report_runless_asset_event(dg.AssetObservation("nothing"))
        instance.all_instigator_state()
        instance.wipe_assets([dg.AssetKey("nothing")])
    return home


@pytest.fixture
def instance(new_home: Path, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's records in files, as a schedule's or a sensor's tick and a pool need them."""
    home = shutil.copytree(new_home, tmp_path / "home")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def make_pipeline(
    bootstrap_servers: str,
    mongo_uri: str,
    tmp_path: Path,
    set_clock: SetClock,
) -> Callable[..., Any]:
    """Makes a `Pipeline` in a `with` statement; its arguments are those of the sandbox.

    Its clock, and that of the sandbox, is at `TUESDAY_15_00` unless `now` says otherwise.
    """

    @contextmanager
    def make(now: datetime = TUESDAY_15_00, **settings: Any) -> Iterator[Pipeline]:
        set_clock(now)
        settings = {"token": TOKEN, "burst": 1_000, **settings}
        with (
            serve(now=lambda: clock.utc_now(), **settings) as sandbox,
            dg.DagsterInstance.ephemeral() as instance,
        ):
            yield Pipeline(
                sandbox,
                mongo_uri,
                bootstrap_servers,
                tmp_path / "quotes",
                f"prices-{uuid4().hex}",
                instance,
            )

    return make


@pytest.fixture
def pipeline(make_pipeline: Callable[..., Any]) -> Iterator[Pipeline]:
    """The pipeline on a Tuesday at 15:00:05, on the free plan, with nothing wrong."""
    with make_pipeline() as pipeline:
        yield pipeline


@pytest.fixture
def pro(make_pipeline: Callable[..., Any]) -> Iterator[Pipeline]:
    """The same on the pro plan, which has bars for each window."""
    with make_pipeline(plan="pro") as pipeline:
        yield pipeline
