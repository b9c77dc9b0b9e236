"""On PostgreSQL, a turn dies with its holder, and with the server."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from market_data_pipeline_tests.schedule.turn_holder import Holder, a_turn_dies_with_its_holder
from market_data_pipeline_tests.services.postgres import Postgres
from market_data_pipeline_tests.supervised import ROOT, free_ports, wait_until

pytestmark = pytest.mark.services


def test_a_turn_on_postgresql_dies_with_its_holder_and_with_a_server_that_crashes(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "deploy" / "dagster.yaml", tmp_path)
    for name, value in (postgres.settings | {"MARKET_DATA_STATE": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    # Dagster's tables: of two processes that create them at once, one may fail.
    dg.DagsterInstance.from_config(str(tmp_path)).dispose()
    a_turn_dies_with_its_holder(tmp_path)

    (port,) = free_ports(1)
    with Holder(tmp_path, port) as first:
        wait_until(lambda: first.is_in, "the first is in")
        postgres.crash()
        first.leave()
    with Holder(tmp_path, port) as second:
        wait_until(lambda: second.is_in, "the second is in")
        second.leave()
