"""The pools of runs that share a PostgreSQL, as a deployment's do."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest

from market_data_pipeline_tests.pools import claimed_at_once
from market_data_pipeline_tests.services.postgres import Postgres
from market_data_pipeline_tests.supervised import ROOT

pytestmark = pytest.mark.services


def test_a_new_pool_lets_in_one_of_two_runs_at_the_most(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "deploy" / "dagster.yaml", tmp_path)
    for name, value in (postgres.settings | {"MARKET_DATA_STATE": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        instances = [
            stack.enter_context(dg.DagsterInstance.from_config(str(tmp_path))) for _ in range(2)
        ]
        for number in range(50):
            assert sum(claimed_at_once(instances, f"pool {number}")) < 2
            # The one that was not let in asks again.
            assert sorted(claimed_at_once(instances, f"pool {number}")) == [False, True]
