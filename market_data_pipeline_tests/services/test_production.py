"""The processes of production with windows of a minute or two, and what becomes of the windows.

They wait more than they work, so that `make test-services` runs this module beside all the others.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from market_data_pipeline_tests.deploy.compose import PROCESSES, services_with
from market_data_pipeline_tests.deploy.set_back import MINUTE
from market_data_pipeline_tests.deploy.webserver import Run, launch_backfill, messages
from market_data_pipeline_tests.services.deployment import (
    ASSETS,
    BEGINNING,
    PUBLISH_HISTORY,
    SCHEDULE,
    TICKERS,
    Deployment,
    Document,
    brapi,
    by_window,
    instruments_lacking,
    key_of,
    misdated,
    repeated,
    tickers_by_window,
    windows_until,
)
from market_data_pipeline_tests.services.postgres import Postgres
from market_data_pipeline_tests.supervised import ROOT

pytestmark = pytest.mark.services

Deploy = Callable[..., AbstractContextManager[Deployment]]
PARTITION = "dagster/partition"
LOCATION = "dagster/code_location"
LOCATIONS = {"blue_chips", "funds"}
EARLY = 2 * MINUTE
"""A window whose run is launched a minute before it ends."""


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory, kafka: str, real_mongo: str) -> Deploy:
    """Starts a deployment; its arguments are `Deployment`'s."""

    @contextmanager
    def deploy(**options: Any) -> Iterator[Deployment]:
        folder = tmp_path_factory.mktemp("deployment")
        with (
            Postgres() as postgres,
            brapi() as sandbox,
            Deployment(folder, sandbox, postgres, real_mongo, kafka, **options) as deployment,
        ):
            deployment.start()
            yield deployment

    return deploy


@pytest.fixture(scope="module")
def early(deploy: Deploy) -> Iterator[Deployment]:
    """A deployment whose runs are launched a minute early."""
    with deploy(window=EARLY) as deployment:
        yield deployment


def test_a_run_is_ready_before_its_window_ends_and_asks_nothing_until_then(
    early: Deployment,
) -> None:
    run = wait_for_one_that_waits(early)
    before = len(early.sandbox.requests)
    check_live(early, run.tags[PARTITION])

    wall = time.time() - time.monotonic()
    asked = [seen.at + wall for seen in early.sandbox.requests[before:]]
    assert min(asked) >= end_of(early, run).timestamp()


def test_a_run_that_is_killed_while_it_waits_costs_its_window_nothing(early: Deployment) -> None:
    run = wait_for_one_that_waits(early)
    process = re.findall(r"\(pid: (\d+)\)", messages(early.url, run.id))[0]
    os.kill(int(process), signal.SIGKILL)
    check_live(early, run.tags[PARTITION])


def test_a_daemon_that_was_down_at_the_tick_costs_its_window_nothing(early: Deployment) -> None:
    early.kill("daemon")
    # The first window whose tick, a minute before its end, is yet to come.
    past = early.now() - early.beginning + MINUTE
    window = early.beginning + past // EARLY * EARLY
    early.wait_for(lambda _: early.now() > window + EARLY - MINUTE / 12)
    early.start("daemon")
    check_live(early, key_of(window))


def end_of(early: Deployment, run: Run) -> datetime:
    """The end of the window of a run, by the real clock."""
    return datetime.fromisoformat(run.tags[PARTITION]) + EARLY + early.clock.behind


def wait_for_one_that_waits(early: Deployment) -> Run:
    """The run of the schedule that waits for the end of its window, as soon as there is one."""

    def waits(run: Run) -> bool:
        return (
            run.status == "STARTED"
            and SCHEDULE in run.tags
            and datetime.now(UTC) < end_of(early, run)
            and 'Started execution of step "quotes"' in messages(early.url, run.id)
        )

    return early.wait_for(lambda runs: next(filter(waits, runs[:3]), None))


def check_live(early: Deployment, key: str) -> None:
    """Once a window has run, all its instruments are stored as of its end, and published."""
    early.wait_for(
        lambda runs: any(run.status == "SUCCESS" and run.tags[PARTITION] == key for run in runs)
    )
    ours = [one for one in early.documents() if key_of(one["window_start"]) == key]
    published = {seen.event.key.decode() for seen in early.events()}
    assert {one["ticker"] for one in ours} == TICKERS == published
    assert {one["source"] for one in ours} == {"live"}
    assert all(one["observed_at"] >= one["window_end"] for one in ours)


def test_no_window_is_lost_and_none_is_published_in_part_when_each_process_is_killed(
    deploy: Deploy,
) -> None:
    with deploy() as deployment:
        deployment.wait_for_a_tick()
        assert [name for name in PROCESSES if not deployment.is_healthy(name)] == []

        deployment.kill("daemon")
        deployment.start("daemon")

        deployment.wait_for_a_request()
        deployment.kill("code-location")
        deployment.sandbox.latency = 0
        deployment.start("code-location")
        # The run that was killed counts as running for some time; its turn is free at once.
        deployment.wait_for_a_tick()

        # From half an hour before the test.
        windows = windows_until(BEGINNING - 30 * MINUTE, deployment.now())
        keys = [key_of(start) for start in windows]
        backfill = launch_backfill(deployment.url, ASSETS, keys, PUBLISH_HISTORY)
        deployment.wait_for_a_request()
        deployment.postgres.crash()
        deployment.sandbox.latency = 0
        deployment.wait_for(
            lambda runs: any(
                run.status == "SUCCESS" and run.tags.get("dagster/backfill") == backfill
                for run in runs
            )
        )
        # Later windows go on meanwhile.
        documents = [one for one in deployment.documents() if one["window_start"] in windows]
        check(deployment, documents)
        bars = deployment.bars()
        assert [start for start in windows if instruments_lacking(documents, start, bars)] == []
        # Of every window the quotes of one source are on the topic.
        published, stored = by_window(deployment.events()), tickers_by_window(documents)
        for group, tickers in stored.items():
            if group in published:
                assert published[group].keys() == tickers
        assert {window for window, _ in stored} <= {window for window, _ in published}


def test_every_window_is_whole_although_postgres_is_killed_and_fails_over(deploy: Deploy) -> None:
    both = {"DAGSTER_POSTGRES_HOST": "127.0.0.1,127.0.0.2"}
    with (
        deploy(settings=both) as deployment,
        Postgres(deployment.postgres, "127.0.0.2") as standby,
    ):
        postgres = deployment.postgres
        deployment.wait_for_a_request()
        since = deployment.now().replace(second=0, microsecond=0) - MINUTE
        postgres.kill()
        postgres.start_again()
        deployment.sandbox.latency = 0
        deployment.wait_for_a_tick()

        deployment.wait_for_a_request()
        postgres.kill()
        standby.promote()
        deployment.sandbox.latency = 0
        deployment.wait_for_a_tick()

        def lacking() -> list[datetime]:
            """The windows that are not stored whole, but for the one that is under way."""
            documents, bars = deployment.documents(), deployment.bars()
            windows = windows_until(since, deployment.now() - 2 * MINUTE)
            return [window for window in windows if instruments_lacking(documents, window, bars)]

        if missed := lacking():  # a tick that was due while nothing answered
            launch_backfill(deployment.url, ASSETS, [key_of(start) for start in missed], {})
        deployment.wait_for(lambda _: not lacking())
        check(deployment, deployment.documents())


def check(deployment: Deployment, documents: list[Document]) -> None:
    """They are stored once and as Brapi said, and whatever a run published, it published whole."""
    assert repeated(documents) == 0
    assert misdated(documents, deployment.bars()) == []
    for counts in by_window(deployment.events()).values():
        assert len({*counts.values()}) == 1


def test_two_code_locations_have_their_own_windows_and_together_all_instruments(
    deploy: Deploy,
) -> None:
    compose = ROOT / "deploy" / "watchlists" / "docker-compose.yml"
    with deploy(services=services_with(compose)) as deployment:

        def both_have_run(runs: list[Run]) -> bool:
            ours = [run for run in runs if SCHEDULE in run.tags and run.status == "SUCCESS"]
            return {run.tags[LOCATION] for run in ours} == LOCATIONS

        def two_windows_are_whole(_: list[Run]) -> bool:
            stored = Counter(one["window_start"] for one in deployment.documents())
            return [*stored.values()].count(len(TICKERS)) >= 2

        deployment.wait_for(both_have_run)
        # On a slow machine the two need not have run for the same windows yet.
        deployment.wait_for(two_windows_are_whole)
        assert repeated(deployment.documents()) == 0
        ids = [seen.ce_id for seen in deployment.events()]
        assert len(ids) == len(set(ids)) >= len(TICKERS)
        quotes = deployment.home.parent / "state" / "quotes"
        assert {path.name for path in quotes.iterdir()} == LOCATIONS
