"""Clusters to publish to: librdkafka's mock and, for `services` tests, Apache Kafka itself."""

import os
from collections.abc import Iterator
from itertools import count

import pytest
from confluent_kafka import Producer

from market_data_pipeline_tests.services.kafka_broker import (
    KafkaCluster,
    ServiceUnavailableError,
    class_path,
)

_numbers = count(1)


@pytest.fixture(scope="session")
def mock_kafka() -> Iterator[str]:
    """The address of a mock cluster in this process."""
    config = {"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0}
    holder = Producer(config)
    brokers = holder.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    del holder  # the cluster lives as long as its producer


@pytest.fixture
def topic() -> str:
    """The name of a topic that no other test uses."""
    return f"topic-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(scope="session")
def kafka_services() -> None:
    """Passes where Apache Kafka can be run: asked for, and with Java and its jars at hand."""
    if os.environ.get("REQUIRE_SERVICES") != "1":
        pytest.skip("needs Apache Kafka: run `make test-services`")
    try:
        class_path()
    except ServiceUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"Apache Kafka cannot be run: {error}")
        pytest.skip(f"Apache Kafka cannot be run: {error}")


@pytest.fixture(scope="session")
def kafka(kafka_services: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real broker that tests do no harm to."""
    if given := os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    with KafkaCluster(tmp_path_factory.mktemp("kafka") / "cluster") as cluster:
        yield cluster.bootstrap_servers


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
