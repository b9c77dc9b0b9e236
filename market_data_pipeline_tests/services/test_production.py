"""The processes of production, and what becomes of the windows when each of them is killed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from market_data_pipeline_tests.deploy.compose import PROCESSES
from market_data_pipeline_tests.deploy.set_back import MINUTE
from market_data_pipeline_tests.deploy.webserver import launch_backfill
from market_data_pipeline_tests.services.deployment import (
    ASSETS,
    BEGINNING,
    PUBLISH_HISTORY,
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

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("windows of minutes")]


@pytest.fixture
def deployment(
    tmp_path: Path, postgres: Postgres, kafka: str, real_mongo: str
) -> Iterator[Deployment]:
    with (
        brapi() as sandbox,
        Deployment(tmp_path, sandbox, postgres, real_mongo, kafka) as deployment,
    ):
        yield deployment


def test_no_window_is_lost_and_none_is_published_in_part(deployment: Deployment) -> None:
    deployment.start()
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
            run.status == "SUCCESS" and run.tags.get("dagster/backfill") == backfill for run in runs
        )
    )
    # Later windows go on meanwhile.
    documents = [one for one in deployment.documents() if one["window_start"] in windows]
    check_documents(deployment, documents, windows)
    check_events(deployment, documents)


def check_documents(
    deployment: Deployment, documents: list[Document], windows: list[datetime]
) -> None:
    """Every window is stored, once, and as Brapi said."""
    bars = deployment.bars()
    assert repeated(documents) == 0
    assert misdated(documents, bars) == []
    assert [start for start in windows if instruments_lacking(documents, start, bars)] == []


def check_events(deployment: Deployment, documents: list[Document]) -> None:
    """Of every window the quotes of one source are on the topic, as often as they are: whole."""
    published = by_window(deployment.events())
    for counts in published.values():
        assert len(set(counts.values())) == 1
    stored = tickers_by_window(documents)
    for group, tickers in stored.items():
        if group in published:
            assert published[group].keys() == tickers
    assert {window for window, _ in stored} <= {window for window, _ in published}
