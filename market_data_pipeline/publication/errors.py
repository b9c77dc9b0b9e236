"""What can go wrong with a publication: each error is one sentence that says what to do."""

from __future__ import annotations

from confluent_kafka import KafkaError

from market_data_pipeline.market.errors import ClearError


class PublicationError(ClearError):
    """The window is not on the topic, or it is not known whether it is."""


class ConfigurationError(PublicationError):
    """A setting that the client or the broker does not take."""


class BrokerUnreachableError(PublicationError):
    """No broker answered in time."""


class AccessRefusedError(PublicationError):
    """Kafka refused the credentials, or what they ask for."""


class TopicMissingError(PublicationError):
    """The topic does not exist and was not created."""


class NotAcknowledgedError(PublicationError):
    """At least one event was not acknowledged by the broker.

    `unacknowledged` holds the keys of all of them, in the order in which they failed.
    """

    def __init__(self, message: str, unacknowledged: tuple[str, ...]) -> None:
        super().__init__(message)
        self.unacknowledged = unacknowledged


class FencedError(PublicationError):
    """A newer run has taken over the transactional id, so the broker rolls this one back."""


class OutcomeUnknownError(PublicationError):
    """The commit was sent and never confirmed: the events may or may not be on the topic."""


_REFUSED_CREDENTIALS = (
    "check KAFKA_CONFIG_SECURITY_PROTOCOL, KAFKA_CONFIG_SASL_MECHANISM, "
    "KAFKA_CONFIG_SASL_USERNAME and KAFKA_CONFIG_SASL_PASSWORD"
)
_FENCED = (
    "a newer run has taken over this transactional id: unless it publishes the same window, "
    "materialize kafka_publication again"
)
_TOO_FEW_REPLICAS = (
    "bring the missing brokers back, or lower min.insync.replicas of the topic, and run again"
)
_TOO_LARGE = (
    "raise max.message.bytes of the topic (without one, message.max.bytes of the broker) and "
    "KAFKA_CONFIG_MESSAGE_MAX_BYTES, or lower KAFKA_CONFIG_BATCH_SIZE to that limit"
)
_DISK = "the broker cannot write: look at its disks and its log"
_NO_TOPIC = "create it, or let this pipeline create it"

_MEANINGS: dict[int, tuple[type[PublicationError], str]] = {
    KafkaError._AUTHENTICATION: (AccessRefusedError, _REFUSED_CREDENTIALS),
    KafkaError.SASL_AUTHENTICATION_FAILED: (AccessRefusedError, _REFUSED_CREDENTIALS),
    KafkaError.UNSUPPORTED_SASL_MECHANISM: (AccessRefusedError, _REFUSED_CREDENTIALS),
    KafkaError._SSL: (
        BrokerUnreachableError,
        "check KAFKA_CONFIG_SSL_CA_LOCATION and the broker's certificate",
    ),
    KafkaError.TOPIC_AUTHORIZATION_FAILED: (
        AccessRefusedError,
        "grant this user WRITE and DESCRIBE on the topic (and CREATE, if it should create the "
        "topic)",
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: (
        AccessRefusedError,
        "grant this user CREATE on the topic, and IDEMPOTENT_WRITE on an old cluster",
    ),
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
        AccessRefusedError,
        "grant this user WRITE and DESCRIBE on the transactional id, or turn transactions off "
        "with KAFKA_TRANSACTIONS=false",
    ),
    KafkaError._FENCED: (FencedError, _FENCED),
    KafkaError.PRODUCER_FENCED: (FencedError, _FENCED),
    KafkaError.INVALID_PRODUCER_EPOCH: (FencedError, _FENCED),
    KafkaError.UNKNOWN_TOPIC_OR_PART: (TopicMissingError, _NO_TOPIC),
    KafkaError._UNKNOWN_TOPIC: (TopicMissingError, _NO_TOPIC),
    KafkaError.TOPIC_EXCEPTION: (ConfigurationError, "set KAFKA_TOPIC to a legal topic name"),
    KafkaError.INVALID_REPLICATION_FACTOR: (
        ConfigurationError,
        "ask for a replication factor that the cluster has brokers for",
    ),
    KafkaError.INVALID_PARTITIONS: (ConfigurationError, "ask for at least one partition"),
    KafkaError.INVALID_TRANSACTION_TIMEOUT: (
        ConfigurationError,
        "choose a shorter time limit for the publication, or raise the broker's "
        "transaction.max.timeout.ms",
    ),
    KafkaError.MSG_SIZE_TOO_LARGE: (PublicationError, _TOO_LARGE),
    KafkaError.RECORD_LIST_TOO_LARGE: (PublicationError, _TOO_LARGE),
    KafkaError.NOT_ENOUGH_REPLICAS: (PublicationError, _TOO_FEW_REPLICAS),
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: (PublicationError, _TOO_FEW_REPLICAS),
    KafkaError.KAFKA_STORAGE_ERROR: (PublicationError, _DISK),
}
OTHERWISE = (PublicationError, "see that the brokers are healthy, and run again")


def meaning(error: KafkaError) -> tuple[type[PublicationError], str]:
    """Which error a code of librdkafka or of the broker stands for, and what to do about it."""
    return _MEANINGS.get(error.code(), OTHERWISE)
