"""The topic: created if it does not exist, and what its configuration is."""

from __future__ import annotations

import logging
import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not export them
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    NewTopic,
)

from market_data_pipeline.publication.client import Client, connection_properties
from market_data_pipeline.publication.errors import PublicationError
from market_data_pipeline.settings import Settings

logger = logging.getLogger(__name__)

_DAY_MS = 24 * 60 * 60 * 1000
CONFIGURATION = {
    # The last event of each ticker stays for ever, and the last week whole: a consumer that starts
    # at the earliest event knows the market.
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": str(7 * _DAY_MS),
    # What is not closed is not compacted, and a segment would take years to fill.
    "segment.ms": str(_DAY_MS),
}
_REFUSED = (KafkaError.POLICY_VIOLATION, KafkaError.INVALID_CONFIG, KafkaError.INVALID_REQUEST)
_UNKNOWN = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


def find_or_create(client: Client) -> None:
    """Sees that the topic is there, and creates it if it is not and KAFKA_CREATE_TOPIC says so.

    Raises:
        PublicationError: the cluster does not answer, there is no topic, or it cannot be used.
    """
    settings = client.settings
    where = f"Topic {settings.kafka_topic} of Kafka at {settings.kafka_bootstrap_servers}"
    metadata = client.connect()
    try:
        if settings.kafka_create_topic and not _exists(metadata, settings):
            _create(client, metadata)
            metadata = client.metadata()
        while not _exists(metadata, settings):
            if not settings.kafka_create_topic or client.seconds_left() <= 0:
                advice = "create it, or let this pipeline create it"
                raise PublicationError(f"{where} does not exist: {advice}.")
            time.sleep(0.05)
            metadata = client.metadata()
    except KafkaException as exception:
        raise client.failure(f"{where} cannot be used", exception.args[0]) from None


def configuration(settings: Settings, timeout: float) -> dict[str, str]:
    """The configuration that the topic has; empty on the stand-in, which has none.

    Raises:
        KafkaException: there is no such topic, this user may not read its configuration, or the
            cluster does not answer within `timeout` seconds.
    """
    admin = AdminClient(connection_properties(settings))
    if _is_stand_in(admin.list_topics(timeout=timeout)):
        return {}
    asked = ConfigResource(ConfigResource.Type.TOPIC, settings.kafka_topic)
    answer = admin.describe_configs([asked], request_timeout=timeout)[asked].result()
    return {name: entry.value for name, entry in answer.items()}


def _exists(metadata: ClusterMetadata, settings: Settings) -> bool:
    error = metadata.topics[settings.kafka_topic].error
    if error is None or error.code() == KafkaError.LEADER_NOT_AVAILABLE:
        return True
    if error.code() in _UNKNOWN:
        return False
    raise KafkaException(error)  # for want of a right or of a legal name


def _create(client: Client, cluster: ClusterMetadata) -> None:
    """Creates the topic; where the cluster refuses CONFIGURATION, with the cluster's own."""
    settings, name = client.settings, client.settings.kafka_topic
    admin = AdminClient(connection_properties(settings) | {"error_cb": client.note_complaint})
    timeout = max(0.1, client.seconds_left())  # a negative one waits forever
    if _is_stand_in(cluster):
        admin.list_topics(name, timeout=timeout)  # which makes it
        return
    for config in (CONFIGURATION, {}):
        topic = NewTopic(
            name,
            settings.kafka_topic_partitions,
            settings.kafka_topic_replication_factor,
            config=config,
        )
        try:
            admin.create_topics([topic], request_timeout=timeout)[name].result()
            return
        except KafkaException as exception:
            error = exception.args[0]
            admin.poll(0)  # for its complaints
            if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            if error.code() not in _REFUSED or not config:
                raise
            logger.warning(
                "The cluster does not let topic %s have %s (%s): it is created with the cluster's "
                "defaults. See the check topic_keeps_prices.",
                name,
                ", ".join(f"{key}={value}" for key, value in config.items()),
                error.str(),
            )


def _is_stand_in(cluster: ClusterMetadata) -> bool:
    """Whether it is the mock of librdkafka, which has no controller."""
    return cluster.controller_id not in cluster.brokers
