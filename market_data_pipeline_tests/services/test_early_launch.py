"""A run that a real daemon launches a minute early, and what becomes of its window."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from market_data_pipeline_tests.deploy.set_back import MINUTE
from market_data_pipeline_tests.deploy.webserver import Run, messages
from market_data_pipeline_tests.services.deployment import (
    SCHEDULE,
    TICKERS,
    Deployment,
    brapi,
    key_of,
)
from market_data_pipeline_tests.services.postgres import Postgres

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("windows of minutes")]
WINDOW = 2 * MINUTE
PARTITION = "dagster/partition"


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, kafka: str, real_mongo: str
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("early")
    with (
        Postgres() as postgres,
        brapi() as sandbox,
        Deployment(folder, sandbox, postgres, real_mongo, kafka, window=WINDOW) as deployment,
    ):
        deployment.start()
        yield deployment


def end_of(deployment: Deployment, run: Run) -> datetime:
    """The end of the window of a run, by the real clock."""
    return datetime.fromisoformat(run.tags[PARTITION]) + WINDOW + deployment.clock.behind


def wait_for_one_that_waits(deployment: Deployment) -> Run:
    """The run of the schedule that waits for the end of its window, as soon as there is one."""
    found: list[Run] = []

    def waits(runs: list[Run]) -> bool:
        found[:] = [
            run
            for run in runs[:3]
            if run.status == "STARTED"
            and SCHEDULE in run.tags
            and datetime.now(UTC) < end_of(deployment, run)
            and 'Started execution of step "quotes"' in messages(deployment.url, run.id)
        ]
        return bool(found)

    deployment.wait_for(waits)
    return found[0]


def succeeded(key: str, runs: list[Run]) -> bool:
    return any(run.status == "SUCCESS" and run.tags[PARTITION] == key for run in runs)


def is_live_and_whole(deployment: Deployment, key: str) -> bool:
    """Whether all instruments of a window are stored as they were after its end, and published."""
    ours = [one for one in deployment.documents() if key_of(one["window_start"]) == key]
    published = {seen.event.key.decode() for seen in deployment.events()}
    return (
        {one["ticker"] for one in ours} == TICKERS == published
        and {one["source"] for one in ours} == {"live"}
        and all(one["observed_at"] >= one["window_end"] for one in ours)
    )


def test_it_is_ready_before_the_window_ends_and_asks_nothing_until_then(
    deployment: Deployment,
) -> None:
    run = wait_for_one_that_waits(deployment)
    before = len(deployment.sandbox.requests)
    key = run.tags[PARTITION]
    deployment.wait_for(lambda runs: succeeded(key, runs))

    wall = time.time() - time.monotonic()
    asked = [seen.at + wall for seen in deployment.sandbox.requests[before:]]
    assert min(asked) >= end_of(deployment, run).timestamp()
    assert is_live_and_whole(deployment, key)


def test_one_that_is_killed_while_it_waits_costs_its_window_nothing(
    deployment: Deployment,
) -> None:
    run = wait_for_one_that_waits(deployment)
    process = re.findall(r"\(pid: (\d+)\)", messages(deployment.url, run.id))[0]
    os.kill(int(process), signal.SIGKILL)
    key = run.tags[PARTITION]
    deployment.wait_for(lambda runs: succeeded(key, runs))

    assert is_live_and_whole(deployment, key)


def test_a_daemon_that_was_down_at_the_tick_costs_its_window_nothing(
    deployment: Deployment,
) -> None:
    deployment.kill("daemon")
    # The first one whose tick, a minute before its end, is yet to come.
    past = deployment.now() - deployment.beginning + MINUTE
    window = deployment.beginning + past // WINDOW * WINDOW
    deployment.wait_for(lambda _: deployment.now() > window + WINDOW - MINUTE / 12)
    deployment.start("daemon")
    deployment.wait_for(lambda runs: succeeded(key_of(window), runs))

    assert is_live_and_whole(deployment, key_of(window))
