"""KAFKA_CONFIG_ variables: the UI shows what is set, and nothing shows a password."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from market_data_pipeline.publication.resource import kafka_client_properties
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline
from market_data_pipeline_tests.supervised import OURS, ROOT

PASSWORD = "correct horse"
# What the page of the resource in the UI shows.
SHOW = """
from dagster._core.remote_representation.external_data import RepositorySnap
from market_data_pipeline.definitions import defs
(kafka,) = (each for each in RepositorySnap.from_def(defs.get_repository_def()).resources
            if each.name == "kafka")
print(kafka.configured_values["client_properties"])
"""


def loaded(**variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not OURS.match(name)} | variables
    return subprocess.run(
        [sys.executable, "-c", SHOW], cwd=ROOT, env=env, capture_output=True, text=True
    )


def test_the_ui_shows_what_is_set_and_of_a_secret_the_variable() -> None:
    shown = loaded(
        KAFKA_CONFIG_SECURITY_PROTOCOL="SASL_SSL", KAFKA_CONFIG_SASL_PASSWORD=PASSWORD
    ).stdout

    assert json.loads(shown) == {
        "security.protocol": "SASL_SSL",
        "sasl.password": {"env": "KAFKA_CONFIG_SASL_PASSWORD"},
    }


def test_what_the_guarantees_rest_on_cannot_be_set_in_a_deployment() -> None:
    refused = loaded(KAFKA_CONFIG_ACKS="1")

    assert refused.returncode != 0
    assert "KAFKA_CONFIG_ACKS may not be set: " in refused.stderr.splitlines()[-1]


def test_a_secret_reaches_the_client_and_no_record_of_the_run(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_CONFIG_SASL_PASSWORDS", PASSWORD)
    pipeline.kafka = {"client_properties": kafka_client_properties(os.environ)}

    run = pipeline.run(LIVE_ON_TUESDAY)

    failure = run.failure_data_for_node("kafka_publication")
    assert failure is not None
    assert 'No such configuration property: "sasl.passwords"' in str(failure.error)
    record = pipeline.instance.get_run_by_id(run.run_id)
    logs = [entry.to_json() for entry in pipeline.instance.all_logs(run.run_id)]
    assert PASSWORD not in f"{record} {logs} {pipeline.kafka} {capfd.readouterr()}"
