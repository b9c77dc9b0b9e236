"""What only Apache Kafka itself can show: transactions, fencing, faults."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from typing import Any
from unittest import mock

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from market_data_pipeline.publication.errors import PublicationError
from market_data_pipeline.publication.event import Event
from market_data_pipeline.publication.kafka import Kafka
from market_data_pipeline_tests.publication import doomed_run
from market_data_pipeline_tests.publication.doomed_pipeline import PRODUCER
from market_data_pipeline_tests.publication.helpers import (
    a_kafka,
    a_window,
    producer_that,
    read,
)
from market_data_pipeline_tests.services.kafka_broker import KafkaCluster

pytestmark = pytest.mark.services
# Left to itself librdkafka goes on for minutes.
LONG_BEFORE_LIBRDKAFKA = 30
KILLS = 10


def test_the_topic_is_made_with_what_was_asked_for(kafka: str, topic: str) -> None:
    a_kafka(kafka, topic, topic_partitions=3, topic_replication_factor=1).publish(a_window())
    made = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics[topic]
    assert [len(partition.replicas) for partition in made.partitions.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"create_topic": False}, r"^Topic {topic} .* does not exist: create it"),
        ({"topic_replication_factor": 9}, "^Topic {topic} .*INVALID_REPLICATION_FACTOR.*set KAFKA"),
        ({"topic": "prices,all"}, "set KAFKA_TOPIC to a legal topic name"),
        ({"timeout_seconds": 3600}, "INVALID_TRANSACTION_TIMEOUT.*lower KAFKA_TIMEOUT_SECONDS"),
    ],
)
def test_what_the_cluster_does_not_grant_is_named(
    kafka: str, topic: str, settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(PublicationError, match=text.format(topic=topic)):
        a_kafka(kafka, topic, topic, **settings).publish(a_window())


def test_what_is_rolled_back_is_seen_uncommitted_only(kafka: str, topic: str) -> None:
    a_kafka(kafka, topic, topic).publish(a_window())

    class InterruptedProducer(Producer):
        def flush(self, *arguments: Any) -> int:
            if super().flush(10) == 0 and not self.interrupted:
                self.interrupted = True
                raise KeyboardInterrupt
            return 0

        interrupted = False

    with mock.patch(PRODUCER, InterruptedProducer), pytest.raises(KeyboardInterrupt):
        a_kafka(kafka, topic, topic).publish(a_window(1))
    assert len(read(kafka, topic)) == 50
    assert len(read(kafka, topic, "read_uncommitted")) == 100


def test_an_older_run_that_hung_is_fenced(kafka: str, topic: str) -> None:
    resume, hung = threading.Event(), threading.Event()

    class HangingProducer(Producer):
        def commit_transaction(self, *arguments: Any) -> None:
            hung.set()
            assert resume.wait(30)
            super().commit_transaction(*arguments)

    older, newer = (a_kafka(kafka, topic, topic) for _ in range(2))
    outcome: list[BaseException] = []
    with mock.patch(PRODUCER, HangingProducer):
        thread = threading.Thread(target=_outcome_of, args=(older, a_window(0), outcome))
        thread.start()
        assert hung.wait(30)
    newer.publish(a_window(1))
    resume.set()
    thread.join()
    assert len(outcome) == 1
    assert "a newer run has taken over" in str(outcome[0])
    assert {one.event for one in read(kafka, topic)} == set(a_window(1))


def test_a_fenced_run_says_so(kafka: str, topic: str) -> None:
    """librdkafka tells of it in more than one way."""
    publisher = a_kafka(kafka, topic, topic)
    publisher.publish(a_window(0))
    outcome: list[BaseException] = []

    def publish_without_pause() -> None:
        for number in range(1, 40):
            _outcome_of(publisher, a_window(number), outcome)

    thread = threading.Thread(target=publish_without_pause)
    thread.start()
    number = 1000
    while thread.is_alive():
        _outcome_of(publisher, a_window(number), outcome)
        number += 1
        thread.join(0.1)
    assert any("a newer run has taken over" in str(error) for error in outcome)
    assert [error for error in outcome if not isinstance(error, PublicationError)] == []


def test_killed_at_any_moment_and_run_again(kafka: str, topic: str) -> None:
    moments, kills, window = random.Random(6), 0, 0
    publisher = a_kafka(kafka, topic, topic)
    while kills < KILLS:
        output = _killed_run(kafka, topic, window, moments.uniform(0, 0.1))
        kills += "committed" not in output
        publisher.publish(a_window(window))
        window += 1
    times_seen: dict[bytes, Counter[str]] = defaultdict(Counter)
    for one in read(kafka, topic):
        times_seen[dict(one.event.headers)["ce_windowstart"]][one.ce_id] += 1
    assert len(times_seen) == window
    assert {len(times) for times in times_seen.values()} == {50}
    # A run that died after its commit, told or not, leaves its window to be repeated, as a whole.
    assert all(set(times.values()) in ({1}, {2}) for times in times_seen.values())
    repeated = sum(set(times.values()) == {2} for times in times_seen.values())
    assert repeated >= window - kills
    assert len(read(kafka, topic, "read_uncommitted")) > 50 * (window + repeated)


def test_broker_killed_and_restarted_in_mid_publication(
    fragile_broker: KafkaCluster, topic: str
) -> None:
    restart = threading.Thread(target=fragile_broker.start)

    def fail(number: int) -> None:
        if number == 500:
            fragile_broker.kill()
            restart.start()

    events = a_window(size=1000)
    publisher = a_kafka(fragile_broker.bootstrap_servers, topic, topic)
    with mock.patch(PRODUCER, producer_that(fail)):
        publisher.publish(events)
    restart.join()
    seen = read(fragile_broker.bootstrap_servers, topic)
    assert Counter(one.event for one in seen) == Counter(events)


def test_broker_down_for_the_whole_step(fragile_broker: KafkaCluster, topic: str) -> None:
    fragile_broker.kill()
    address = fragile_broker.bootstrap_servers
    publisher = a_kafka(address, topic, topic, timeout_seconds=3)
    started = time.monotonic()
    with pytest.raises(PublicationError, match=f"{address} could not be reached within 3 s"):
        publisher.publish(a_window())
    assert time.monotonic() - started < LONG_BEFORE_LIBRDKAFKA
    fragile_broker.start()
    publisher.publish(a_window())


@pytest.mark.parametrize("transactional_id", ["tests", ""])
def test_broker_killed_for_good_in_mid_publication(
    fragile_broker: KafkaCluster, topic: str, transactional_id: str
) -> None:
    address = fragile_broker.bootstrap_servers
    publisher = a_kafka(address, topic, transactional_id, timeout_seconds=5)
    publisher.publish(a_window())
    started = time.monotonic()
    kill = producer_that(lambda number: fragile_broker.kill() if number == 25 else None)
    with mock.patch(PRODUCER, kill), pytest.raises(PublicationError) as caught:
        publisher.publish(a_window(1))
    assert time.monotonic() - started < LONG_BEFORE_LIBRDKAFKA
    caught.match("events were not acknowledged by Kafka at .*Connection refused")
    fragile_broker.start()
    publisher.publish(a_window(1))
    assert {one.event for one in read(address, topic)} == {*a_window(0), *a_window(1)}


def test_leader_killed_in_mid_publication(three_brokers: KafkaCluster, topic: str) -> None:
    address = three_brokers.bootstrap_servers
    publisher = a_kafka(address, topic, topic)
    publisher.publish(a_window())
    partitions = AdminClient({"bootstrap.servers": address}).list_topics(timeout=10).topics[topic]
    leader = partitions.partitions[0].leader

    def fail(number: int) -> None:
        if number == 500:
            three_brokers.brokers[leader].kill()

    events = a_window(1, size=1000)
    with mock.patch(PRODUCER, producer_that(fail)):
        publisher.publish(events)
    seen = Counter(one.event for one in read(address, topic))
    three_brokers.start(leader)
    assert seen == Counter([*a_window(), *events])


def _outcome_of(publisher: Kafka, events: list[Event], outcome: list[BaseException]) -> None:
    try:
        publisher.publish(events)
    except Exception as error:
        outcome.append(error)


def _killed_run(address: str, topic: str, window: int, seconds: float) -> str:
    """What a run printed that was killed so long after its first message."""
    arguments = [address, topic, str(window), str(seconds)]
    ended = subprocess.run(
        [sys.executable, "-m", doomed_run.__name__, *arguments], capture_output=True, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return ended.stdout
