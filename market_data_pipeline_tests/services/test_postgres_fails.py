"""PostgreSQL, where Dagster keeps its runs, is killed during a run; then a standby takes over."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from market_data_pipeline_tests.deploy.set_back import MINUTE
from market_data_pipeline_tests.deploy.webserver import launch_backfill
from market_data_pipeline_tests.services.deployment import (
    ASSETS,
    Deployment,
    brapi,
    by_window,
    instruments_lacking,
    key_of,
    misdated,
    repeated,
    windows_until,
)
from market_data_pipeline_tests.services.postgres import Postgres

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("windows of minutes")]


def test_every_window_is_whole_although_postgres_is_killed_and_fails_over(
    tmp_path: Path, postgres: Postgres, kafka: str, real_mongo: str
) -> None:
    both = {"DAGSTER_POSTGRES_HOST": "127.0.0.1,127.0.0.2"}
    with (
        Postgres(postgres, "127.0.0.2") as standby,
        brapi() as sandbox,
        Deployment(tmp_path, sandbox, postgres, real_mongo, kafka, settings=both) as deployment,
    ):
        deployment.start()
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
        if missed := lacking(deployment, since):  # a tick that was due while nothing answered
            launch_backfill(deployment.url, ASSETS, [key_of(start) for start in missed], {})
        deployment.wait_for(lambda _: not lacking(deployment, since))

        documents = deployment.documents()
        assert repeated(documents) == 0
        assert misdated(documents, deployment.bars()) == []
        # Whatever a run published, it published whole.
        assert all(
            len({*counts.values()}) == 1 for counts in by_window(deployment.events()).values()
        )


def lacking(deployment: Deployment, since: datetime) -> list[datetime]:
    """The windows since then that are not stored whole, but for the one that is under way."""
    documents, bars = deployment.documents(), deployment.bars()
    windows = windows_until(since, deployment.now() - 2 * MINUTE)
    return [window for window in windows if instruments_lacking(documents, window, bars)]
