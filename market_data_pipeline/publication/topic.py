"""The topic: created if it does not exist, and what its configuration is."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not export them
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    NewTopic,
)

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
_REFUSALS = (KafkaError.POLICY_VIOLATION, KafkaError.INVALID_CONFIG, KafkaError.INVALID_REQUEST)


def is_missing(metadata: ClusterMetadata, topic: str) -> bool:
    """Whether the cluster that answered with `metadata` does not have the topic.

    Raises:
        KafkaException: the cluster does not say, for want of a right or of a legal name.
    """
    error = metadata.topics[topic].error
    if error is None or error.code() == KafkaError.LEADER_NOT_AVAILABLE:
        return False
    if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return True
    raise KafkaException(error)


def create(
    topic: str,
    partitions: int,
    replication_factor: int,
    *,
    connection: Mapping[str, str],
    cluster: ClusterMetadata,
    timeout: float,
) -> None:
    """Creates the topic on a cluster, given its last answer.

    A cluster without a controller takes no such request, but may let a topic appear when a client
    that allows it asks for it. One that refuses CONFIGURATION gets a topic with its own.

    Raises:
        KafkaException: the cluster refused, or did not answer within `timeout` seconds.
    """
    admin = AdminClient(dict(connection))
    if _is_stand_in(cluster):
        admin.list_topics(topic, timeout=timeout)
        return
    for asked in (CONFIGURATION, {}):
        new = NewTopic(topic, partitions, replication_factor, config=asked)
        try:
            admin.create_topics([new], request_timeout=timeout)[topic].result()
            return
        except KafkaException as exception:
            error = exception.args[0]
            if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            if error.code() not in _REFUSALS or not asked:
                raise
            logger.warning(
                "The cluster does not let topic %s have %s (%s): it is created with the cluster's "
                "own configuration. The check topic_keeps_prices says what that means.",
                topic,
                ", ".join(f"{name}={value}" for name, value in asked.items()),
                error.str(),
            )


def configuration(topic: str, connection: Mapping[str, str], timeout: float) -> dict[str, str]:
    """The configuration that a topic has; empty on the stand-in, which has none.

    Raises:
        KafkaException: there is no such topic, this user may not read its configuration, or the
            cluster does not answer within `timeout` seconds.
    """
    admin = AdminClient(dict(connection))
    if _is_stand_in(admin.list_topics(timeout=timeout)):
        return {}
    asked = ConfigResource(ConfigResource.Type.TOPIC, topic)
    answer = admin.describe_configs([asked], request_timeout=timeout)[asked].result()
    return {name: entry.value for name, entry in answer.items()}


def _is_stand_in(cluster: ClusterMetadata) -> bool:
    """Whether it is the mock of librdkafka, which has no controller."""
    return cluster.controller_id not in cluster.brokers
