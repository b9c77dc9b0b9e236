"""Clusters to publish to: librdkafka's mock and, for `services` tests, Apache Kafka itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from market_data_pipeline_tests.services.kafka_broker import KafkaCluster


@pytest.fixture(scope="session")
def mock_kafka() -> Iterator[str]:
    """The address of a mock cluster in this process."""
    config = {"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0}
    holder = Producer(config)
    brokers = holder.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    del holder  # the cluster lives as long as its producer


@pytest.fixture(scope="module")
def fragile_broker(
    kafka_services: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaCluster]:
    """One broker that tests may kill, and leave running."""
    with KafkaCluster(tmp_path_factory.mktemp("kafka") / "fragile") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def three_brokers(
    kafka_services: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaCluster]:
    """Three brokers that tests may kill, and leave running."""
    with KafkaCluster(tmp_path_factory.mktemp("kafka") / "three", brokers=3) as cluster:
        yield cluster
