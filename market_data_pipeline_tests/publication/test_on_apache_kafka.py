"""What only Apache Kafka itself can show: transactions, fencing, faults."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from market_data_pipeline.publication.errors import PublicationError
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


def test_an_older_run_that_hung_is_fenced(kafka: str, topic: str) -> None:
    resume, hung = threading.Event(), threading.Event()

    class HangingProducer(Producer):
        def commit_transaction(self, *arguments: Any) -> None:
            hung.set()
            assert resume.wait(30)
            super().commit_transaction(*arguments)

    older, newer = (a_kafka(kafka, topic, topic) for _ in range(2))
    with ThreadPoolExecutor(1) as thread:
        with mock.patch(PRODUCER, HangingProducer):
            hanging = thread.submit(older.publish, a_window(0))
            assert hung.wait(30)
        newer.publish(a_window(1))
        resume.set()
        with pytest.raises(PublicationError, match="a newer run has taken over"):
            hanging.result()
    assert {one.event for one in read(kafka, topic)} == set(a_window(1))


def test_a_fenced_run_says_so(kafka: str, topic: str) -> None:
    """librdkafka tells of it in more than one way."""
    publisher = a_kafka(kafka, topic, topic)
    publisher.publish(a_window(0))
    said: list[str] = []

    def publish(number: int) -> None:
        try:
            publisher.publish(a_window(number))
        except PublicationError as error:
            said.append(str(error))

    with ThreadPoolExecutor(1) as thread:
        others = [thread.submit(publish, number) for number in range(1, 40)]
        while not others[-1].done():
            publish(1000)
            time.sleep(0.1)
    assert [each.exception() for each in others if each.exception()] == []
    assert any("a newer run has taken over" in each for each in said)


@pytest.mark.parametrize("cluster", ["fragile_broker", "three_brokers"])
def test_leader_killed_in_mid_publication(
    cluster: str, topic: str, request: pytest.FixtureRequest
) -> None:
    """The only broker is started again, one of three is not: another one leads."""
    brokers: KafkaCluster = request.getfixturevalue(cluster)
    address = brokers.bootstrap_servers
    publisher = a_kafka(address, topic, topic)
    publisher.publish(a_window())
    metadata = AdminClient({"bootstrap.servers": address}).list_topics(timeout=10)
    leader = metadata.topics[topic].partitions[0].leader
    restart = threading.Thread(target=brokers.start, args=[leader])
    is_alone = len(brokers.brokers) == 1

    def fail(number: int) -> None:
        if number == 500:
            brokers.brokers[leader].kill()
            if is_alone:
                restart.start()

    events = a_window(1, size=1000)
    with mock.patch(PRODUCER, producer_that(fail)):
        publisher.publish(events)
    if is_alone:
        restart.join()
    seen = Counter(one.event for one in read(address, topic))
    if not is_alone:
        brokers.start(leader)
    assert seen == Counter([*a_window(), *events])


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
