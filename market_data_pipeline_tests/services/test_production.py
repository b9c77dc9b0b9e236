"""The processes of production, and what becomes of the windows when each of them is killed."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymongo
import pytest
import yaml

from market_data_pipeline.local import rules
from market_data_pipeline.local.answers import history, quote, stamp
from market_data_pipeline.local.market import Market
from market_data_pipeline.local.sandbox import Sandbox, serve
from market_data_pipeline.watchlist import load_watchlist
from market_data_pipeline.windows import EXCHANGE_TIMEZONE, KEY_FORMAT
from market_data_pipeline_tests.deploy.compose import PROCESSES, Processes
from market_data_pipeline_tests.deploy.webserver import (
    NoAnswerError,
    Run,
    launch_backfill,
    runs,
)
from market_data_pipeline_tests.kafka.helpers import read
from market_data_pipeline_tests.services.postgres import PASSWORD, Postgres
from market_data_pipeline_tests.supervised import ROOT

pytestmark = pytest.mark.services

MINUTE = timedelta(minutes=1)
# A Tuesday in the middle of a session: it is then when the test begins.
BEGINNING = datetime(2026, 11, 17, 17, 0, tzinfo=UTC)
MARKET = Market()
TICKERS = {paper.ticker for paper in load_watchlist()}
SCHEDULE = "dagster/schedule_name"
PUBLISH_HISTORY = {"ops": {"kafka_publication": {"config": {"publish_history": True}}}}
ASSETS = ["quotes", "mongo_price_history", "kafka_publication"]


class Deployment(Processes):
    """The processes with the services around them, at a time that the test chose."""

    def __init__(
        self, folder: Path, sandbox: Sandbox, postgres: Postgres, mongo_uri: str, kafka: str
    ) -> None:
        self.sandbox, self.postgres, self.kafka = sandbox, postgres, kafka
        self.mongo_uri, self.database = mongo_uri, f"production_{uuid4().hex[:8]}"
        self.topic = self.database
        behind = (datetime.now(UTC) - BEGINNING) // MINUTE * MINUTE
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC) - behind
        sandbox.now = self.now
        instance = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
        # Ten minutes are more than a test wants to wait for.
        instance["run_monitoring"] |= {"max_runtime_seconds": 60, "poll_interval_seconds": 2}
        (folder / "state").mkdir()
        settings = {
            "MARKET_DATA_ENV": "production",
            "MARKET_DATA_STATE": str(folder / "state"),
            "QUOTES_PATH": str(folder / "state" / "quotes"),
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(postgres.port),
            "DAGSTER_POSTGRES_DB": "postgres",
            "DAGSTER_POSTGRES_USER": "dagster",
            "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
            "BRAPI_BASE_URL": sandbox.url,
            "BRAPI_TOKEN": "token-of-the-tests",
            "BRAPI_PLAN": "pro",
            "BRAPI_MIN_INTERVAL_SECONDS": "0.01",
            "MONGO_URI": mongo_uri,
            "MONGO_DB": self.database,
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_TRANSACTIONAL_ID": self.topic,
            "SYNC_INTERVAL_MINUTES": "1",
            "PARTITIONS_START": f"{BEGINNING:%Y-%m-%d}",
            "TEST_SECONDS_BACK": str(int(behind.total_seconds())),
            "NO_PROXY": "127.0.0.1",
        }
        module = "market_data_pipeline_tests.deploy.minutes"
        super().__init__(folder / "home", yaml.safe_dump(instance), settings, module)

    def wait_for(self, what: Callable[[list[Run]], bool], seconds: float = 300) -> None:
        """Waits until that is so of the runs."""
        patience = time.monotonic() + seconds
        found: list[Run] = []
        while time.monotonic() < patience:
            self.restart_those_that_ended()
            try:
                found = runs(self.url)
                if what(found):
                    return
            except NoAnswerError:
                pass
            time.sleep(0.5)
        raise AssertionError(found)

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

    def documents(self) -> list[dict[str, Any]]:
        with pymongo.MongoClient[dict[str, Any]](self.mongo_uri, tz_aware=True) as client:
            return [*client[self.database]["price_history"].find()]


@pytest.fixture
def deployment(
    tmp_path: Path,
    postgres: Postgres,
    kafka: str,
    real_mongo: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Deployment]:
    at_once = dataclasses.replace(rules.PLANS["pro"], refresh_minutes=1)
    monkeypatch.setitem(rules.PLANS, "pro", at_once)
    with serve(plan="pro") as sandbox:
        deployment = Deployment(tmp_path, sandbox, postgres, real_mongo, kafka)
        try:
            yield deployment
        finally:
            deployment.kill()
            with pymongo.MongoClient[dict[str, Any]](real_mongo) as client:
                client.drop_database(deployment.database)


def test_no_window_is_lost_and_none_is_published_in_part(deployment: Deployment) -> None:
    deployment.start()
    deployment.wait_for(
        lambda runs: any(
            run.status == "SUCCESS" and "market_data/startup" in run.tags for run in runs
        )
    )
    deployment.wait_for_a_tick()
    assert [name for name in PROCESSES if not deployment.is_healthy(name)] == []

    deployment.kill("daemon")
    deployment.start("daemon")
    deployment.wait_for_a_tick()

    deployment.wait_for_a_request()
    deployment.kill("code-location")
    deployment.sandbox.latency = 0
    deployment.start("code-location")
    deployment.wait_for(was_retried)

    keys = windows_until(deployment.now())
    backfill = launch_backfill(deployment.url, ASSETS, keys, PUBLISH_HISTORY)
    deployment.wait_for_a_request()
    deployment.postgres.crash()
    deployment.sandbox.latency = 0
    deployment.wait_for(
        lambda runs: any(
            run.status == "SUCCESS" and run.tags.get("dagster/backfill") == backfill for run in runs
        )
    )
    windows = {datetime.strptime(key, KEY_FORMAT).astimezone(UTC) for key in keys}
    # Later windows go on meanwhile.
    documents = [one for one in deployment.documents() if one["window_start"] in windows]
    check_documents(documents, windows)
    check_events(deployment, documents)


def was_retried(runs: list[Run]) -> bool:
    """Whether a run that was killed has failed, and another has done its work."""
    failed = {run.id for run in runs if run.status == "FAILURE"}
    return any(
        run.status == "SUCCESS" and run.tags.get("dagster/parent_run_id") in failed for run in runs
    )


def windows_until(now: datetime) -> list[str]:
    """Every window from half an hour before the test to the last one that has ended."""
    first = BEGINNING - 30 * MINUTE
    starts = (first + n * MINUTE for n in range((now - first) // MINUTE))
    return [start.astimezone(EXCHANGE_TIMEZONE).strftime(KEY_FORMAT) for start in starts]


def check_documents(documents: list[dict[str, Any]], windows: set[datetime]) -> None:
    """Every window is stored, once, and as Brapi said."""
    assert len({(one["ticker"], one["window_start"]) for one in documents}) == len(documents)
    stored: dict[datetime, dict[str, dict[str, Any]]] = {start: {} for start in windows}
    for one in documents:
        stored[one["window_start"]][one["ticker"]] = one
    bars = bars_of_the_day(max(windows) + MINUTE)
    for start, by_ticker in stored.items():
        assert by_ticker.keys() >= {ticker for ticker in TICKERS if start in bars[ticker]}
        for ticker, one in by_ticker.items():
            if one["source"] == "live":
                check_live(one)
            else:
                assert one["price"] == bars[ticker][start]["close"]


def check_live(document: dict[str, Any]) -> None:
    """It is the last trade of when it was asked, and it was asked while its window was live."""
    observed, traded = document["observed_at"], document["updated_at"]
    assert document["window_end"] <= observed < document["window_end"] + MINUTE
    said = quote(MARKET, document["ticker"], traded + timedelta(seconds=1))
    assert said["regularMarketTime"] == stamp(traded)
    assert document["price"] == said["regularMarketPrice"]
    assert document["volume"] == said["regularMarketVolume"]
    # The sandbox answers with what was known at the last full minute.
    known = observed.replace(second=0, microsecond=0) - MINUTE
    earlier = quote(MARKET, document["ticker"], known)
    assert stamp(traded) >= earlier["regularMarketTime"]


def bars_of_the_day(now: datetime) -> dict[str, dict[datetime, dict[str, Any]]]:
    day = BEGINNING.date()
    return {
        ticker: {
            datetime.fromtimestamp(bar["date"], UTC): bar
            for bar in history(MARKET, ticker, now, (day, day), "1m")
        }
        for ticker in TICKERS
    }


def check_events(deployment: Deployment, documents: list[dict[str, Any]]) -> None:
    """Of every window the quotes of one source are on the topic, as often as they are: whole."""
    published: dict[tuple[str, str], Counter[str]] = {}
    for seen in read(deployment.kafka, deployment.topic):
        headers = {name: value.decode() for name, value in seen.event.headers}
        group = headers["ce_windowstart"], headers["ce_quotesource"]
        published.setdefault(group, Counter())[seen.event.key.decode()] += 1
    for counts in published.values():
        assert len(set(counts.values())) == 1
    stored: dict[tuple[str, str], set[str]] = {}
    for one in documents:
        stored.setdefault((stamp(one["window_start"]), one["source"]), set()).add(one["ticker"])
    for group, tickers in stored.items():
        if group in published:
            assert published[group].keys() == tickers
    assert {window for window, _ in stored} <= {window for window, _ in published}
