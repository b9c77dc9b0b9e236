"""What passes through from the environment to the client."""

from __future__ import annotations

import pytest

from market_data_pipeline.publication.errors import ConfigurationError
from market_data_pipeline.publication.properties import config_from_environment, without_secrets
from market_data_pipeline.publication.publisher import Publisher
from market_data_pipeline_tests.publication.helpers import a_window

PASSWORD = "correct horse"


def test_variables_become_properties() -> None:
    environ = {
        "KAFKA_CONFIG_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_CONFIG_SASL_PASSWORD": PASSWORD,
        "KAFKA_CONFIG_SSL_CA_LOCATION": "",
        "KAFKA_TOPIC": "prices",
    }
    assert config_from_environment(environ) == {
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
def test_what_the_guarantees_rest_on_cannot_be_overridden(variable: str, advice: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable} may not be set: .*{advice}"):
        config_from_environment({variable: "1"})
    name = variable.removeprefix("KAFKA_CONFIG_").lower().replace("_", ".")
    with pytest.raises(ConfigurationError, match=advice):
        Publisher("localhost:9092", "prices", config={name: "1"})


def test_settings_that_are_missing_are_named() -> None:
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        Publisher("", "prices")
    with pytest.raises(ConfigurationError, match="KAFKA_TOPIC is empty"):
        Publisher("localhost:9092", "")


def test_a_property_that_kafka_does_not_know_is_named() -> None:
    publisher = Publisher("localhost:9092", "prices", config={"sasl.passwort": "x"})
    with pytest.raises(ConfigurationError, match=r"sasl\.passwort"):
        publisher.publish(a_window())


def test_secrets_are_blanked_out() -> None:
    config = {"sasl.password": PASSWORD, "ssl.key.pem": "KEY", "client.id": "me"}
    assert without_secrets(f"me {PASSWORD} KEY", config) == "me *** ***"


def test_a_publisher_shows_no_secret() -> None:
    publisher = Publisher("localhost:9092", "prices", config={"sasl.password": PASSWORD})
    assert PASSWORD not in f"{publisher!r} {publisher}"
