"""Creates the topic if it does not exist."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not export them
    AdminClient,
    ClusterMetadata,
    NewTopic,
)


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
    that allows it asks for it.

    Raises:
        KafkaException: the cluster refused, or did not answer within `timeout` seconds.
    """
    admin = AdminClient(dict(connection))
    if cluster.controller_id not in cluster.brokers:
        admin.list_topics(topic, timeout=timeout)
        return
    new = NewTopic(topic, partitions, replication_factor)
    try:
        admin.create_topics([new], request_timeout=timeout)[topic].result()
    except KafkaException as exception:
        if exception.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
