"""What passes from the environment to librdkafka and into the events, and what of it is shown."""

import json
import re
from collections.abc import Callable

import pytest

from market_data_pipeline.publication.client import Client, connection_properties, without_values
from market_data_pipeline.publication.errors import PublicationError
from market_data_pipeline.publication.event import FORMAT_NOT_CHOSEN
from market_data_pipeline.settings import Settings
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, LoadDefinitions, Pipeline
from market_data_pipeline_tests.observed import logs, metadata
from market_data_pipeline_tests.publication.helpers import a_kafka, a_window
from market_data_pipeline_tests.supervised import ROOT

PASSWORD = "correct horse"
# The form of `updated_at` is said to be the default until it is chosen.
VARIABLE = "KAFKA_UPDATED_AT_FORMAT"


@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_variables_become_properties(
    case: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(case("KAFKA_CONFIG_SECURITY_PROTOCOL"), "SASL_SSL")
    monkeypatch.setenv(case("KAFKA_CONFIG_SASL_PASSWORD"), PASSWORD)
    monkeypatch.setenv(case("KAFKA_CONFIG_SSL_CA_LOCATION"), " ")
    properties = connection_properties(Settings())
    assert {name: value for name, value in properties.items() if "s" in name.split(".")[0]} == {
        "bootstrap.servers": "localhost:9092",
        "security.protocol": "SASL_SSL",
        "sasl.password": PASSWORD,
    }


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("KAFKA_CONFIG_ACKS", "guarantees rest on it"),
        ("KAFKA_CONFIG_REQUEST_REQUIRED_ACKS", "guarantees rest on it"),
        ("KAFKA_CONFIG_ENABLE_IDEMPOTENCE", "guarantees rest on it"),
        ("KAFKA_CONFIG_ENABLE_GAPLESS_GUARANTEE", "guarantees rest on it"),
        ("KAFKA_CONFIG_DEFAULT_TOPIC_CONFIG", "by its own name instead"),
        ("KAFKA_CONFIG_MAX_IN_FLIGHT", "guarantees rest on it"),
        ("KAFKA_CONFIG_PARTITIONER", "guarantees rest on it"),
        ("KAFKA_CONFIG_TRANSACTIONAL_ID", "set KAFKA_TRANSACTIONAL_ID instead"),
        ("KAFKA_CONFIG_BOOTSTRAP_SERVERS", "set KAFKA_BOOTSTRAP_SERVERS instead"),
    ],
)
def test_what_the_guarantees_rest_on_cannot_be_overridden(
    variable: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(PublicationError, match=f"^{variable} may not be set: .*{advice}"):
        connection_properties(Settings())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sasl.pasword", "hunter2", 'No such configuration property: "sasl.pasword"'),
        ("security.protocol", "s3cr3t", 'Invalid value "KAFKA_CONFIG_SECURITY_PROTOCOL" for'),
        ("linger.ms", "-7", "value KAFKA_CONFIG_LINGER_MS is outside allowed range"),
        ("sasl.mechanism", "x", "KAFKA_CONFIG_SASL_MECHANISM"),
    ],
)
def test_what_librdkafka_does_not_take_is_named_and_not_shown(
    name: str, value: str, said: str
) -> None:
    properties = {"security.protocol": "SASL_SSL", name: value}
    with pytest.raises(PublicationError) as refused:
        a_kafka("localhost:9092", "prices", client_properties=properties).publish(a_window())
    assert said in str(refused.value)
    assert not re.search(rf"(?<!\w){value}(?!\w)", str(refused.value))


def test_the_start_refuses_what_librdkafka_does_not_take(load_definitions: LoadDefinitions) -> None:
    with pytest.raises(Exception, match=r'such configuration property: "sasl\.pasword"'):
        load_definitions(KAFKA_CONFIG_SASL_PASWORD=PASSWORD)


def test_a_value_is_no_part_of_another_word_or_of_our_own() -> None:
    config = {"security.protocol": "ssl", "ssl.ca.location": "/no/such/file"}
    with pytest.raises(PublicationError, match=r"not take .* ssl.ca.location failed"):
        Client(Settings(kafka_client_properties=config))
    client = Client(Settings(kafka_client_properties={"client.id": "brokers"}))
    assert "see that the brokers are healthy" in str(client.failure("Nothing was sent", None))


def test_a_value_is_shown_by_the_name_of_its_variable() -> None:
    properties = {"sasl.username": "me@example", "sasl.password": PASSWORD, "client.id": "SSL"}
    shown = without_values(f"me@example:{PASSWORD} SSL, not some@example", properties)
    assert shown == "KAFKA_CONFIG_SASL_USERNAME:KAFKA_CONFIG_SASL_PASSWORD SSL, not some@example"


def test_a_secret_reaches_the_client_and_no_record_of_the_run(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline.definitions()  # their start would refuse it
    monkeypatch.setenv("KAFKA_CONFIG_SASL_PASSWORDS", PASSWORD)

    run = pipeline.run(LIVE_ON_TUESDAY)

    assert 'No such configuration property: "sasl.passwords"' in logs(pipeline, run)
    record = pipeline.instance.get_run_by_id(run.run_id)
    entries = [str(entry) for entry in pipeline.instance.all_logs(run.run_id)]
    shown = f"{record} {entries} {pipeline.settings()} {capfd.readouterr()}"
    assert PASSWORD not in shown


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
    load_definitions: LoadDefinitions,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, str],
    warnings: int,
) -> None:
    load_definitions(**settings)

    assert caplog.text.count(FORMAT_NOT_CHOSEN) == warnings


def test_no_deployment_makes_the_choice_for_its_owner() -> None:
    files = [*ROOT.glob("*.y*ml"), *(ROOT / "deploy").rglob("*.*"), ROOT / ".env.example"]
    lines = [line for path in files for line in path.read_text().splitlines()]
    assert [line for line in lines if VARIABLE in line and not line.strip().startswith("#")] == []
