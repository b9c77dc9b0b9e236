"""What can go wrong with a publication: one sentence that says what to do, and shows no secret."""

from __future__ import annotations

import re

from confluent_kafka import KafkaError

from market_data_pipeline import ClearError


class PublicationError(ClearError):
    """The window is not on the topic, or it is not known whether it is."""


REFUSED_CREDENTIALS = (
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
)
FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
NO_ANSWER = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._MSG_TIMED_OUT)

_TOO_FEW_REPLICAS = (
    "bring the missing brokers back, or lower min.insync.replicas of the topic, and run again"
)
_TOO_LARGE = (
    "raise max.message.bytes of the topic (without one, message.max.bytes of the broker) and "
    "KAFKA_CONFIG_MESSAGE_MAX_BYTES, or lower KAFKA_CONFIG_BATCH_SIZE to that limit"
)
_ADVICE = {
    **dict.fromkeys(
        REFUSED_CREDENTIALS,
        "check KAFKA_CONFIG_SECURITY_PROTOCOL, KAFKA_CONFIG_SASL_MECHANISM, "
        "KAFKA_CONFIG_SASL_USERNAME and KAFKA_CONFIG_SASL_PASSWORD",
    ),
    **dict.fromkeys(
        FENCED,
        "a newer run has taken over this transactional id: unless it publishes the same window, "
        "materialize kafka_publication again",
    ),
    KafkaError._SSL: "check KAFKA_CONFIG_SSL_CA_LOCATION and the broker's certificate",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant this user WRITE and DESCRIBE on the topic (and "
    "CREATE, if it should create the topic)",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant this user CREATE on the topic, and "
    "IDEMPOTENT_WRITE on an old cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "grant this user WRITE and DESCRIBE on the "
    "transactional id, or turn transactions off with KAFKA_TRANSACTIONS=false",
    KafkaError.TOPIC_EXCEPTION: "set KAFKA_TOPIC to a legal topic name",
    KafkaError.INVALID_REPLICATION_FACTOR: "set KAFKA_TOPIC_REPLICATION_FACTOR to no more than the "
    "cluster has brokers",
    KafkaError.INVALID_TRANSACTION_TIMEOUT: "lower KAFKA_TIMEOUT_SECONDS, or raise the broker's "
    "transaction.max.timeout.ms",
    KafkaError.MSG_SIZE_TOO_LARGE: _TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE: _TOO_LARGE,
    KafkaError.NOT_ENOUGH_REPLICAS: _TOO_FEW_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: _TOO_FEW_REPLICAS,
    KafkaError.KAFKA_STORAGE_ERROR: "the broker cannot write: look at its disks and its log",
}
_OTHERWISE = "see that the brokers are healthy, and run again"
_NOT_CONFIGURED = (
    "start the broker at that address, or set its advertised.listeners to an address that can be "
    "reached from this machine"
)
# How librdkafka names a broker whose address it has from the cluster: `host:port/1: …`.
_FROM_THE_CLUSTER = re.compile(r"^(?:\w+://)?(\S+:\d+)/\d+: (?:Connect|Failed to resolve)")
_DURATION = re.compile(r" \(after \d+ ?ms.*\)$")


def described(error: KafkaError | None) -> str:
    """An error's name and text: `NOT_ENOUGH_REPLICAS: Broker: Not enough in-sync replicas`."""
    if error is None:
        return "no answer in time"
    return f"{error.name()}: {_DURATION.sub('', error.str())}"


def advice(error: KafkaError | None, bootstrap_servers: str, otherwise: str = "") -> str:
    """What to do about an error of librdkafka or of the broker, or otherwise.

    The cluster may advertise other addresses than those that are configured.
    """
    found = error and _FROM_THE_CLUSTER.match(error.str())
    if found and found[1] not in re.split(r"[,\s]+", bootstrap_servers):
        return _NOT_CONFIGURED
    return (error and _ADVICE.get(error.code())) or otherwise or _OTHERWISE
