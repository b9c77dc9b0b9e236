"""Measures the publication on Apache Kafka, beside what it is made of and what it replaces.

    python -m benchmarks.kafka_publication

Starts a broker as the tests do (JDK 17 and Maven), or uses TEST_KAFKA_BOOTSTRAP_SERVERS.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median

from confluent_kafka import Consumer, Producer, TopicPartition

from market_data_pipeline.publication.client import producer_properties
from market_data_pipeline.publication.event import Event
from market_data_pipeline_tests.publication.helpers import a_kafka, a_window
from market_data_pipeline_tests.services.kafka_broker import KafkaCluster

EVENTS = 100_000
ROUNDS = 5
WINDOWS = 20

_numbers = count()


def bare(address: str, topic: str, events: list[Event]) -> None:
    """What can be had at most: the publisher's settings, and nothing looked after."""
    settings = a_kafka(address, topic, "bare").settings
    producer = Producer(producer_properties(settings))
    producer.list_topics(topic, timeout=10)
    producer.list_topics(topic, timeout=10)
    producer.init_transactions()
    producer.begin_transaction()
    for event in events:
        while True:
            try:
                producer.produce(topic, event.value, event.key, headers=list(event.headers))
                break
            except BufferError:
                producer.poll(0.05)
    producer.flush()
    producer.commit_transaction()


def plain(address: str, topic: str, events: list[Event]) -> None:
    """The plain pattern, which asks nobody whether anything arrived."""
    producer = Producer({"bootstrap.servers": address, "queue.buffering.max.messages": 200_000})
    for event in events:
        producer.produce(topic, event.value, event.key)
        producer.poll(0)
    producer.flush()


def ours(address: str, topic: str, events: list[Event]) -> None:
    """The publisher."""
    a_kafka(address, topic, "ours").publish(events)


def throughput(address: str) -> None:
    """Events a second of the three, one after the other in each round."""
    events = a_window(size=EVENTS)
    ways: list[Callable[[str, str, list[Event]], None]] = [ours, bare, plain]
    rates: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            topic = _topic(address)
            started = time.perf_counter()
            way(address, topic, events)
            rates[way.__name__].append(EVENTS / (time.perf_counter() - started))
    print(f"{EVENTS} events, median of {ROUNDS}")
    for name, found in rates.items():
        share = median(rates["ours"]) / median(found)
        print(f"  {name:6} {median(found):9,.0f} events/s   ours is {share:.2f} of it")


def latency(address: str) -> None:
    """Milliseconds from the first look at 50 events to a `read_committed` consumer having them."""
    topic = _topic(address)
    publisher = a_kafka(address, topic, "latency")
    publisher.publish(a_window())
    found: dict[str, list[float]] = {}
    with _reader(address, topic) as read:
        for window in range(WINDOWS):
            events = a_window(window)
            started = time.perf_counter()
            publisher.publish(events)
            published = time.perf_counter()
            read(len(events))
            phases = {
                "in all": time.perf_counter() - started,
                "publish": published - started,
                "read": time.perf_counter() - published,
            }
            for name, seconds in phases.items():
                found.setdefault(name, []).append(seconds * 1000)
            time.sleep(0.2)
    print(f"50 events until a read_committed consumer has them, median of {WINDOWS}")
    for name, milliseconds in found.items():
        print(f"  {name:12} {median(milliseconds):6.1f} ms   worst {max(milliseconds):6.1f} ms")


@contextmanager
def _reader(address: str, topic: str) -> Iterator[Callable[[int], None]]:
    """A consumer at the end of the topic; waits until it has read so many more messages."""
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "benchmark", "isolation.level": "read_committed"}
    )
    ends = [
        TopicPartition(
            topic, number, consumer.get_watermark_offsets(TopicPartition(topic, number))[1]
        )
        for number in range(4)
    ]
    consumer.assign(ends)
    consumer.poll(1)

    def read(messages: int) -> None:
        while messages:
            messages -= len(consumer.consume(messages, timeout=0.01))

    yield read
    consumer.close()


def _topic(address: str) -> str:
    """A topic of its own, made and warm."""
    topic = f"benchmark-{os.getpid()}-{next(_numbers)}"
    a_kafka(address, topic).publish(a_window())
    return topic


def main() -> None:
    """Runs both measurements."""
    if given := os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS"):
        throughput(given)
        latency(given)
        return
    with (
        tempfile.TemporaryDirectory(prefix="kafka-") as folder,
        KafkaCluster(Path(folder) / "cluster") as cluster,
    ):
        throughput(cluster.bootstrap_servers)
        latency(cluster.bootstrap_servers)


if __name__ == "__main__":
    main()
