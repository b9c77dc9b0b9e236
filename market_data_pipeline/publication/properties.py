"""The properties of librdkafka that KAFKA_CONFIG_… sets: which may not be, and which are shown."""

from __future__ import annotations

import re
from collections.abc import Mapping

from market_data_pipeline.publication.errors import ConfigurationError
from market_data_pipeline.settings import KAFKA_CONFIG

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


def refuse_reserved(config: Mapping[str, str]) -> None:
    """Lets only properties through that leave the publication's guarantees alone.

    Raises:
        ConfigurationError: a property is reserved.
    """
    for name in config:
        if name in _RESERVED:
            raise ConfigurationError(f"{variable(name)} may not be set: {_RESERVED[name]}.")


def without_values(text: str, config: Mapping[str, str], shortest: int = 4) -> str:
    """`text` with the variable's name for each value of `config`: any of them may be a secret.

    Values shorter than `shortest` stay, as they may be a part of what is said.
    """
    for name in sorted(config, key=lambda name: -len(config[name])):
        if len(config[name]) >= shortest:
            text = re.sub(rf"(?<!\w){re.escape(config[name])}(?!\w)", variable(name), text)
    return text


def variable(name: str) -> str:
    """The variable that sets a property: KAFKA_CONFIG_SASL_USERNAME for `sasl.username`."""
    return KAFKA_CONFIG + name.upper().replace(".", "_")
