"""The form of `updated_at` is said to be the default until it is chosen."""

import json
from collections.abc import Callable
from types import ModuleType

import pytest

from market_data_pipeline.publication.event import FORMAT_NOT_CHOSEN
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline
from market_data_pipeline_tests.observed import logs, metadata
from market_data_pipeline_tests.supervised import ROOT

VARIABLE = "KAFKA_UPDATED_AT_FORMAT"


@pytest.mark.parametrize(
    ("chosen", "said", "kind"),
    [("", FORMAT_NOT_CHOSEN, int), ("epoch", "epoch", int), ("iso8601", "iso8601", str)],
)
def test_a_run_says_which_form_it_sent(
    pipeline: Pipeline, chosen: str, said: str, kind: type
) -> None:
    pipeline.kafka = {"updated_at_format": chosen}
    run = pipeline.run(LIVE_ON_TUESDAY)
    assert metadata(run, "kafka_publication")["updated_at_format"] == said
    assert logs(pipeline, run).count(FORMAT_NOT_CHOSEN) == (chosen == "")
    assert {type(json.loads(one.event.value)["updated_at"]) for one in pipeline.events()} == {kind}


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ({"KAFKA_BOOTSTRAP_SERVERS": "broker:9092", VARIABLE: " "}, 1),
        ({"KAFKA_BOOTSTRAP_SERVERS": "broker:9092", VARIABLE: "epoch"}, 0),
        ({}, 0),
    ],
)
def test_the_start_warns_once(
    load_definitions: Callable[..., ModuleType],
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, str],
    warnings: int,
) -> None:
    load_definitions(**settings)

    assert caplog.text.count(FORMAT_NOT_CHOSEN) == warnings


@pytest.mark.parametrize(
    "path",
    [
        ".env.example",
        "docker-compose.yml",
        "deploy/helm-values.yaml",
        "deploy/watchlists/helm-values.yaml",
    ],
)
def test_no_deployment_makes_the_choice_for_its_owner(path: str) -> None:
    lines = (ROOT / path).read_text().splitlines()
    assert [line for line in lines if VARIABLE in line and not line.strip().startswith("#")] == []
