"""What a run says of each condition of Kafka, what is on the topic, and what the next run does."""

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest import mock

import dagster as dg
import pytest
from confluent_kafka import Producer

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline, SetClock
from market_data_pipeline_tests.observed import checks, logs
from market_data_pipeline_tests.publication.doomed_pipeline import MOMENTS, PRODUCER, killed_run
from market_data_pipeline_tests.publication.helpers import create_topic, read
from market_data_pipeline_tests.services.kafka_broker import KafkaCluster
from market_data_pipeline_tests.services.proxy import Proxy
from market_data_pipeline_tests.supervised import free_ports

pytestmark = pytest.mark.services

TICKERS = 50
# Bytes: more than an event has, and less than a quarter of a window.
LIMIT = "700"
TIMES_AND_PRICES = {
    # How often a consumer gets each quote, and how many different prices.
    ("read_uncommitted", False): (3, 2),
    ("read_uncommitted", True): (2, 2),
    ("read_committed", False): (2, 1),
    ("read_committed", True): (1, 1),
}


class Line(Proxy):
    """A line to a server that can be cut, or lose every answer."""

    loses_answers = False

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            answers = source.getpeername() == self._target
            while data := source.recv(65536):
                if not (answers and self.loses_answers):
                    target.sendall(data)


@pytest.fixture(scope="module")
def cluster(
    kafka_services: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[KafkaCluster, int]]:
    """A broker with a listener that it advertises at another port, where nobody listens yet."""
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
def inside(cluster: tuple[KafkaCluster, int], pipeline: Pipeline) -> str:
    """The address of the broker that the pipeline uses."""
    pipeline.bootstrap_servers = cluster[0].bootstrap_servers
    return pipeline.bootstrap_servers


@pytest.fixture
def line(cluster: tuple[KafkaCluster, int], inside: str, pipeline: Pipeline) -> Line:
    """What the pipeline is sent to by the broker, when it is open."""
    pipeline.bootstrap_servers = cluster[0].extra_address
    line = Line(("127.0.0.1", int(cluster[0].extra_address.split(":")[1])))
    line.port = cluster[1]
    return line


@pytest.mark.parametrize(
    ("transactional_id", "topic_exists"),
    [("market-data-pipeline", True), ("market-data-pipeline", False), ("", True)],
)
def test_advertised_address_that_cannot_be_reached(
    pipeline: Pipeline, inside: str, line: Line, transactional_id: str, topic_exists: bool
) -> None:
    pipeline.kafka = {"timeout_seconds": 8, "transactional_id": transactional_id}
    if topic_exists:
        create_topic(inside, pipeline.topic)
    run = pipeline.run(LIVE_ON_TUESDAY)
    assert _said(pipeline, run).endswith(
        f"127.0.0.1:{line.port} failed: Connection refused): start the broker at that address, or "
        "set its advertised.listeners to an address that can be reached from this machine."
    )
    with line:
        _publishes_whole(pipeline, inside)


def test_batch_larger_than_the_topic_takes(pipeline: Pipeline, inside: str) -> None:
    create_topic(inside, pipeline.topic, config={"max.message.bytes": LIMIT})
    run = pipeline.run(LIVE_ON_TUESDAY)
    assert _said(pipeline, run).endswith(
        "consumers see none of them (MSG_SIZE_TOO_LARGE: Broker: Message size too large): "
        "raise max.message.bytes of the topic (without one, message.max.bytes of the broker) "
        "and KAFKA_CONFIG_MESSAGE_MAX_BYTES, or lower KAFKA_CONFIG_BATCH_SIZE to that limit."
    )
    assert read(inside, pipeline.topic) == []
    pipeline.kafka = {"client_properties": {"batch.size": LIMIT}}
    _publishes_whole(pipeline, inside)


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
    create_topic(address, pipeline.topic, 3, {"min.insync.replicas": replicas_needed})
    for number in stopped:
        three_brokers.brokers[number].stop()
    run = pipeline.run(LIVE_ON_TUESDAY)
    three_brokers.start(*stopped)
    assert sentence in _said(pipeline, run)
    _publishes_whole(pipeline, address)


@pytest.mark.parametrize(("lost", "times"), [("request", 1), ("answer", 2)])
def test_commit_whose_outcome_is_unknown(
    pipeline: Pipeline, inside: str, line: Line, lost: str, times: int
) -> None:
    pipeline.kafka = {"timeout_seconds": 4}

    class CutOff(Producer):
        def commit_transaction(self, *arguments: Any) -> None:
            if lost == "request":
                line.cut()
            line.loses_answers = True
            super().commit_transaction(*arguments)

    with line:
        with mock.patch(PRODUCER, CutOff):
            run = pipeline.run(LIVE_ON_TUESDAY)
        said = _said(pipeline, run)
        assert said.startswith(
            "Kafka did not confirm the commit, so the events may or may not be on the topic ("
        )
        assert said.endswith(
            "): materialize kafka_publication again; consumers drop repeats by their ce_id."
        )
        assert run.asset_materializations_for_node("kafka_publication") == []
        line.cut()
        line.loses_answers = False
        line.open()
        # What was not committed the broker rolls back after the time-out; `read` waits for that.
        assert len(read(inside, pipeline.topic)) == (times - 1) * TICKERS
        _publishes_whole(pipeline, inside, times)


@pytest.mark.parametrize("moment", MOMENTS)
def test_run_killed_inside_its_transaction(pipeline: Pipeline, inside: str, moment: str) -> None:
    killed_run(pipeline, moment)
    committed = moment == "committed"
    topic = pipeline.topic
    assert len(read(inside, topic, open_transaction=True)) == committed * TICKERS
    assert len(read(inside, topic, "read_uncommitted")) == MOMENTS[moment]

    assert pipeline.run(LIVE_ON_TUESDAY).success
    _on_the_topic(inside, topic, 1 + committed)
    assert len(read(inside, topic, "read_uncommitted")) == MOMENTS[moment] + TICKERS


def test_how_often_a_consumer_gets_a_quote_as_the_contract_says(
    pipeline: Pipeline, inside: str, set_clock: SetClock
) -> None:
    """Of a window that was rolled back, published with newer prices, and repeated."""
    killed_run(pipeline, "before the commit")
    set_clock(TUESDAY_15_00 + timedelta(minutes=5))
    assert pipeline.run(LIVE_ON_TUESDAY).success
    _publishes_whole(pipeline, inside, 2)

    for (isolation, drops_repeats), expected in TIMES_AND_PRICES.items():
        seen = read(inside, pipeline.topic, isolation)
        if isolation == "read_uncommitted":
            different = Counter(key for key, _ in {(one.event.key, one.ce_id) for one in seen})
            moved = {key for key, prices in different.items() if prices == 2}
            assert moved
        handled = {one.ce_id: one for one in seen}.values() if drops_repeats else seen
        times = Counter(one.event.key for one in handled)
        prices = Counter(key for key, _ in {(one.event.key, one.event.value) for one in handled})
        assert {(times[key], prices[key]) for key in moved} == {expected}


def _said(pipeline: Pipeline, run: dg.ExecuteInProcessResult) -> str:
    """The one sentence with which a run failed, in its check as in its failure."""
    assert not run.success
    passed, description = checks(run)["every_quote_delivered"]
    assert not passed
    sentence = description.removeprefix(f"{LIVE_ON_TUESDAY} was not published: ")
    assert sentence != description
    assert sentence in logs(pipeline, run).replace(description, "")
    assert len(pipeline.documents()) == TICKERS
    return sentence


def _publishes_whole(pipeline: Pipeline, address: str, times: int = 1) -> None:
    """The asset alone, run again: then every event is on the topic so many times."""
    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success
    _on_the_topic(address, pipeline.topic, times)


def _on_the_topic(address: str, topic: str, times: int) -> None:
    found = Counter(one.ce_id for one in read(address, topic))
    assert (len(found), {*found.values()}) == (TICKERS, {times})
