"""What a run says of each condition of Kafka, what is on the topic, and what the next run does."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import dagster as dg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline
from market_data_pipeline_tests.observed import checks, logs
from market_data_pipeline_tests.publication.doomed_pipeline import MOMENTS, PRODUCER, killed_run
from market_data_pipeline_tests.publication.helpers import read
from market_data_pipeline_tests.services.kafka_broker import KafkaCluster
from market_data_pipeline_tests.services.proxy import Proxy
from market_data_pipeline_tests.supervised import free_ports

pytestmark = pytest.mark.services

TICKERS = 50
# Bytes: more than an event has, and less than a quarter of a window.
LIMIT = 700


class Line(Proxy):
    """A line to a server that can be cut, or lose every answer."""

    loses_answers = False

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            answers = source.getpeername() == self._target
            while data := source.recv(65536):
                if not (answers and self.loses_answers):
                    target.sendall(data)


@dataclass(frozen=True)
class Outside:
    """A broker with a listener that it advertises at the port of `line`, which is not open yet."""

    cluster: KafkaCluster
    line: Line

    @property
    def inside(self) -> str:
        return self.cluster.bootstrap_servers


@pytest.fixture(scope="module")
def outside_cluster(
    kafka_services: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[KafkaCluster, int]]:
    (port,) = free_ports(1)
    properties = {
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,OUTSIDE:PLAINTEXT"
        ),
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    }
    folder = tmp_path_factory.mktemp("outside") / "cluster"
    with KafkaCluster(folder, 1, properties, "OUTSIDE", f"127.0.0.1:{port}") as cluster:
        yield cluster, port


@pytest.fixture
def outside(outside_cluster: tuple[KafkaCluster, int]) -> Outside:
    cluster, port = outside_cluster
    line = Line(("127.0.0.1", int(cluster.extra_address.split(":")[1])))
    line.port = port
    return Outside(cluster, line)


@pytest.mark.parametrize(
    ("transactional_id", "topic_exists"),
    [("market-data-pipeline", True), ("market-data-pipeline", False), ("", True)],
)
def test_advertised_address_that_cannot_be_reached(
    pipeline: Pipeline, outside: Outside, transactional_id: str, topic_exists: bool
) -> None:
    pipeline.bootstrap_servers = outside.cluster.extra_address
    pipeline.kafka = {"timeout_seconds": 8, "transactional_id": transactional_id}
    if topic_exists:
        _create(outside.inside, pipeline.topic)
    run = pipeline.run(LIVE_ON_TUESDAY)
    assert _said(pipeline, run).endswith(
        f"127.0.0.1:{outside.line.port} failed: Connection refused): start the broker at that "
        "address, or set its advertised.listeners to an address that can be reached from this "
        "machine."
    )
    with outside.line:
        _publishes_whole(pipeline, outside.inside)


def _limit_of_topic(pipeline: Pipeline, address: str) -> None:
    _create(address, pipeline.topic, 1, {"max.message.bytes": str(LIMIT)})


def _limit_of_broker(pipeline: Pipeline, address: str) -> None:
    _create(address, pipeline.topic)
    _set_message_max_bytes(address, str(LIMIT))


@pytest.mark.parametrize("limit", [_limit_of_topic, _limit_of_broker])
def test_batch_larger_than_the_broker_takes(
    pipeline: Pipeline,
    outside: Outside,
    limit: Callable[[Pipeline, str], None],
) -> None:
    pipeline.bootstrap_servers = outside.inside
    limit(pipeline, outside.inside)
    try:
        run = pipeline.run(LIVE_ON_TUESDAY)
        assert _said(pipeline, run).endswith(
            "consumers see none of them (MSG_SIZE_TOO_LARGE: Broker: Message size too large): "
            "raise max.message.bytes of the topic (without one, message.max.bytes of the broker) "
            "and KAFKA_CONFIG_MESSAGE_MAX_BYTES, or lower KAFKA_CONFIG_BATCH_SIZE to that limit."
        )
        assert read(outside.inside, pipeline.topic) == []
        pipeline.kafka = {"client_properties": {"batch.size": str(LIMIT)}}
        _publishes_whole(pipeline, outside.inside)
    finally:
        _set_message_max_bytes(outside.inside, None)


@pytest.mark.parametrize(
    ("replicas_needed", "stopped", "sentence"),
    [
        ("3", [3], "bring the missing brokers back, or lower min.insync.replicas of the topic"),
        ("2", [2, 3], "check that transaction.state.log.min.isr brokers are up"),
    ],
)
def test_too_few_brokers(
    pipeline: Pipeline,
    three_brokers: KafkaCluster,
    replicas_needed: str,
    stopped: list[int],
    sentence: str,
) -> None:
    pipeline.bootstrap_servers = three_brokers.bootstrap_servers
    pipeline.kafka = {"timeout_seconds": 15}
    address = three_brokers.bootstrap_servers
    _create(address, pipeline.topic, 3, {"min.insync.replicas": replicas_needed})
    for number in stopped:
        three_brokers.brokers[number].stop()
    run = pipeline.run(LIVE_ON_TUESDAY)
    three_brokers.start(*stopped)
    assert sentence in _said(pipeline, run)
    _publishes_whole(pipeline, address)


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_commit_whose_outcome_is_unknown(pipeline: Pipeline, outside: Outside, lost: str) -> None:
    pipeline.bootstrap_servers = outside.cluster.extra_address
    pipeline.kafka = {"timeout_seconds": 4}

    class CutOff(Producer):
        def commit_transaction(self, *arguments: Any) -> None:
            if lost == "request":
                outside.line.cut()
            outside.line.loses_answers = True
            super().commit_transaction(*arguments)

    with outside.line:
        with mock.patch(PRODUCER, CutOff):
            run = pipeline.run(LIVE_ON_TUESDAY)
        said = _said(pipeline, run)
        assert said.startswith(
            "Kafka did not confirm the commit within 4 s (KAFKA_TIMEOUT_SECONDS), so the events "
            "may or may not be on the topic ("
        )
        assert said.endswith(
            "): materialize kafka_publication again; consumers drop repeats by their ce_id."
        )
        assert run.asset_materializations_for_node("kafka_publication") == []
        outside.line.cut()
        outside.line.loses_answers = False
        outside.line.open()
        # What was not committed the broker rolls back after the time-out; `read` waits for that.
        before = read(outside.inside, pipeline.topic)
        assert len(before) == (TICKERS if lost == "answer" else 0)

        assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success
        times = Counter(one.ce_id for one in read(outside.inside, pipeline.topic))
    assert len(times) == TICKERS
    assert set(times.values()) == {2 if lost == "answer" else 1}


@pytest.mark.parametrize("moment", MOMENTS)
def test_run_killed_inside_its_transaction(
    pipeline: Pipeline, outside: Outside, moment: str
) -> None:
    address, topic = outside.inside, pipeline.topic
    pipeline.bootstrap_servers = address
    killed_run(pipeline, moment)
    committed = TICKERS if moment == "committed" else 0
    assert len(read(address, topic, open_transaction=True)) == committed
    assert len(read(address, topic, "read_uncommitted")) == MOMENTS[moment]

    assert pipeline.run(LIVE_ON_TUESDAY).success
    times = Counter(one.ce_id for one in read(address, topic))
    assert len(times) == TICKERS
    assert set(times.values()) == {2 if committed else 1}
    assert len(read(address, topic, "read_uncommitted")) == MOMENTS[moment] + TICKERS


def _said(pipeline: Pipeline, run: dg.ExecuteInProcessResult) -> str:
    """The one sentence with which a run failed, in its check as in its failure."""
    assert not run.success
    passed, description = checks(run)["every_quote_delivered"]
    assert not passed
    sentence = description.removeprefix(f"{LIVE_ON_TUESDAY} is not on the topic: ")
    assert sentence != description
    assert sentence in logs(pipeline, run).replace(description, "")
    assert len(pipeline.documents()) == TICKERS
    return sentence


def _publishes_whole(pipeline: Pipeline, address: str) -> None:
    """The asset alone, run again, puts every event on the topic once."""
    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success
    times = Counter(one.ce_id for one in read(address, pipeline.topic))
    assert (len(times), set(times.values())) == (TICKERS, {1})


def _create(
    address: str, topic: str, replicas: int = 1, config: Mapping[str, str] | None = None
) -> None:
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(topic, 4, replicas, config=dict(config or {}))])[topic].result()


def _set_message_max_bytes(address: str, value: str | None) -> None:
    """Sets the brokers' limit, or goes back to the default."""
    operation = AlterConfigOpType.SET if value else AlterConfigOpType.DELETE
    entry = ConfigEntry("message.max.bytes", value, incremental_operation=operation)
    resource = ConfigResource(ResourceType.BROKER, "1", incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": address})
    admin.incremental_alter_configs([resource])[resource].result()
