"""Settings of the Kafka client: what passes through from the environment, and what may not."""

from __future__ import annotations

from collections.abc import Mapping

from market_data_pipeline.publication.errors import ConfigurationError

PREFIX = "KAFKA_CONFIG_"

_DECIDED_HERE = "the publication's guarantees rest on it, so it is not configurable"
_RESERVED = {
    "bootstrap.servers": "set KAFKA_BOOTSTRAP_SERVERS instead",
    "metadata.broker.list": "set KAFKA_BOOTSTRAP_SERVERS instead",
    "transactional.id": "set KAFKA_TRANSACTIONAL_ID instead",
    **dict.fromkeys(
        (
            "acks",
            "request.required.acks",
            "enable.idempotence",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "retries",
            "message.send.max.retries",
            "message.timeout.ms",
            "delivery.timeout.ms",
            "transaction.timeout.ms",
            "delivery.report.only.error",
            "allow.auto.create.topics",
            "partitioner",
        ),
        _DECIDED_HERE,
    ),
}
_SECRET_MARKS = ("password", "passphrase", "secret", "key.pem", "oauthbearer.config")


def config_from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The librdkafka properties that `KAFKA_CONFIG_*` variables ask for.

    `KAFKA_CONFIG_SECURITY_PROTOCOL=SASL_SSL` becomes `security.protocol`. A variable that is
    empty counts as not set.

    Raises:
        ConfigurationError: a variable would override what the publication's guarantees rest on.
    """
    return {name: environ[variable] for name, variable in variables(environ).items()}


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variable of each librdkafka property that `KAFKA_CONFIG_*` variables ask for.

    Raises:
        ConfigurationError: as `config_from_environment`.
    """
    asked = {}
    for variable, value in environ.items():
        if variable.startswith(PREFIX) and value:
            name = variable.removeprefix(PREFIX).lower().replace("_", ".")
            _refuse_reserved(name, shown_as=variable)
            asked[name] = variable
    return asked


def refuse_reserved(config: Mapping[str, str]) -> None:
    """Lets only properties through that leave the publication's guarantees alone.

    Raises:
        ConfigurationError: a property is reserved.
    """
    for name in config:
        _refuse_reserved(name, shown_as=name)


def is_secret(name: str) -> bool:
    """Whether the value of a librdkafka property is a secret."""
    return any(mark in name for mark in _SECRET_MARKS)


def without_secrets(text: str, config: Mapping[str, object]) -> str:
    """`text` with the value of every secret property of `config` blanked out."""
    for name, value in config.items():
        if is_secret(name):
            text = text.replace(str(value), "***")
    return text


def _refuse_reserved(name: str, *, shown_as: str) -> None:
    if name in _RESERVED:
        raise ConfigurationError(f"{shown_as} may not be set: {_RESERVED[name]}.")
