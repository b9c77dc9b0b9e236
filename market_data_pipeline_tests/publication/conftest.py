"""Clusters of Apache Kafka that tests may do harm to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from market_data_pipeline_tests.services.kafka_broker import KafkaCluster


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
