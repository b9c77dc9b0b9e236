"""On files, a turn dies with its holder; on PostgreSQL see `services/test_turns_on_postgres.py`."""

from pathlib import Path

import dagster as dg

from market_data_pipeline_tests.schedule.turn_holder import a_turn_dies_with_its_holder


def test_a_turn_on_files_dies_with_its_holder(instance: dg.DagsterInstance) -> None:
    a_turn_dies_with_its_holder(Path(instance.root_directory))
