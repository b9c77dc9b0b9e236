"""What passes through from the environment to the client."""

from __future__ import annotations

import re

import pytest

from market_data_pipeline.publication.errors import ConfigurationError
from market_data_pipeline.publication.properties import without_values
from market_data_pipeline.publication.publisher import Publisher
from market_data_pipeline.publication.resource import Kafka
from market_data_pipeline.settings import Settings
from market_data_pipeline_tests.publication.helpers import a_window

PASSWORD = "correct horse"


def test_variables_become_properties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_CONFIG_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_CONFIG_SASL_PASSWORD", PASSWORD)
    monkeypatch.setenv("KAFKA_CONFIG_SSL_CA_LOCATION", " ")
    config = Kafka(Settings()).publisher().connection()
    assert {name: value for name, value in config.items() if "s" in name.split(".")[0]} == {
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
    with pytest.raises(ConfigurationError, match=f"^{variable} may not be set: .*{advice}"):
        Kafka(Settings()).publisher()


def test_settings_that_are_missing_are_named() -> None:
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        Publisher("", "prices")
    with pytest.raises(ConfigurationError, match="KAFKA_TOPIC is empty"):
        Publisher("localhost:9092", "")


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
    publisher = Publisher(
        "localhost:9092", "prices", config={"security.protocol": "SASL_SSL", name: value}
    )
    with pytest.raises(ConfigurationError) as refused:
        publisher.publish(a_window())
    assert said in str(refused.value)
    assert not re.search(rf"(?<!\w){value}(?!\w)", str(refused.value))


def test_a_value_is_shown_by_the_name_of_its_variable() -> None:
    config = {"sasl.username": "me@example", "sasl.password": PASSWORD, "client.id": "SSL"}
    shown = without_values(f"me@example:{PASSWORD} SSL, not some@example", config)
    assert shown == "KAFKA_CONFIG_SASL_USERNAME:KAFKA_CONFIG_SASL_PASSWORD SSL, not some@example"


def test_a_publisher_shows_no_secret() -> None:
    publisher = Publisher("localhost:9092", "prices", config={"sasl.password": PASSWORD})
    assert PASSWORD not in f"{publisher!r} {publisher}"
