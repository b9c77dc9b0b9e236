"""Two code locations of one image on one instance, each with a part of the instruments."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from market_data_pipeline_tests.deploy.compose import services_with
from market_data_pipeline_tests.deploy.webserver import Run
from market_data_pipeline_tests.services.deployment import (
    SCHEDULE,
    TICKERS,
    Deployment,
    Document,
    brapi,
)
from market_data_pipeline_tests.services.postgres import Postgres
from market_data_pipeline_tests.supervised import ROOT

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("windows of minutes")]

LOCATION = "dagster/code_location"
LOCATIONS = {"blue_chips", "funds"}


def both_have_run(runs: list[Run]) -> bool:
    """Whether each location has a run of its schedule that has succeeded."""
    ours = [run for run in runs if SCHEDULE in run.tags]
    return {run.tags[LOCATION] for run in ours if run.status == "SUCCESS"} == LOCATIONS


def whole_windows(documents: list[Document]) -> int:
    """How many windows have all the instruments of both."""
    by_window: dict[datetime, set[str]] = {}
    for one in documents:
        by_window.setdefault(one["window_start"], set()).add(one["ticker"])
    return [*by_window.values()].count(TICKERS)


def test_each_has_its_own_windows_and_together_they_have_all_instruments(
    tmp_path: Path, postgres: Postgres, kafka: str, real_mongo: str
) -> None:
    services = services_with(ROOT / "deploy" / "watchlists" / "docker-compose.yml")
    with (
        brapi() as sandbox,
        Deployment(tmp_path, sandbox, postgres, real_mongo, kafka, services=services) as deployment,
    ):
        deployment.start()
        deployment.wait_for(both_have_run)
        # On a slow machine the two need not have run for the same windows yet.
        deployment.wait_for(lambda _: whole_windows(deployment.documents()) >= 2)
        documents = deployment.documents()

        stored = Counter((one["window_start"], one["ticker"]) for one in documents)
        assert set(stored.values()) == {1}
        assert whole_windows(documents) >= 2
        ids = [seen.ce_id for seen in deployment.events()]
        assert len(ids) == len(set(ids)) >= len(TICKERS)
        folders = {path.name for path in (tmp_path / "state" / "quotes").iterdir()}
        assert folders == {"blue_chips", "funds"}
