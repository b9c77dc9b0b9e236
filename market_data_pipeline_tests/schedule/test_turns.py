"""On files, a turn dies with its holder; on PostgreSQL see `services/test_turns_on_postgres.py`."""

from pathlib import Path

import dagster as dg
import pytest

from market_data_pipeline.runs import turn
from market_data_pipeline.runs.turn import BRAPI, KAFKA
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline
from market_data_pipeline_tests.observed import failure_of
from market_data_pipeline_tests.schedule.turn_holder import a_turn_dies_with_its_holder


def test_a_turn_on_files_dies_with_its_holder(instance: dg.DagsterInstance) -> None:
    a_turn_dies_with_its_holder(Path(instance.root_directory))


@pytest.mark.usefixtures("four_instruments")
@pytest.mark.parametrize(("name", "asset"), [(BRAPI, "quotes"), (KAFKA, "kafka_publication")])
def test_a_file_that_cannot_be_locked_is_one_sentence(
    pipeline: Pipeline, name: str, asset: str
) -> None:
    """Another user may have made it: by the first run from the command line, as root."""
    path = Path(pipeline.instance.storage_directory()) / f"{name}.lock"
    path.mkdir(parents=True)  # for not even root may write to a folder

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert failure_of(result, asset) == (
        f"{path} cannot be locked: Is a directory. Let the user of the run write to it and to its "
        "folder, then materialize again."
    )


@pytest.mark.usefixtures("four_instruments")
def test_a_postgresql_that_does_not_answer_is_one_sentence_without_its_password(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql+psycopg2://dagster:word-77aa@127.0.0.1:1/dagster"
    monkeypatch.setattr(turn, "postgres_url", lambda _: url)

    said = failure_of(pipeline.run(LIVE_ON_TUESDAY))

    assert said.startswith(f"PostgreSQL did not give this run the lock {BRAPI} (connection to ")
    assert said.endswith("that the server of the Dagster instance is up, then materialize again.")
    assert "word-77aa" not in said
    assert "\n" not in said
