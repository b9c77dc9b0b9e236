"""KAFKA_CONFIG_ variables: nothing shows their values."""

from __future__ import annotations

import pytest

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline

PASSWORD = "correct horse"


def test_a_secret_reaches_the_client_and_no_record_of_the_run(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_CONFIG_SASL_PASSWORDS", PASSWORD)

    run = pipeline.run(LIVE_ON_TUESDAY)

    failure = run.failure_data_for_node("kafka_publication")
    assert failure is not None
    assert 'No such configuration property: "sasl.passwords"' in str(failure.error)
    record = pipeline.instance.get_run_by_id(run.run_id)
    logs = [str(entry) for entry in pipeline.instance.all_logs(run.run_id)]
    assert PASSWORD not in f"{record} {logs} {pipeline.kafka} {capfd.readouterr()}"
