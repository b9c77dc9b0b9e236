"""Measures how long a consumer that starts cold takes until it knows the market.

    python -m benchmarks.cold_consumer

It has a new group, starts at the earliest event, and knows the market when it has read the topic to
its end. Starts a broker as the tests do (JDK 17 and Maven).
"""

from __future__ import annotations

import json
import tempfile
import time
from itertools import count
from pathlib import Path
from statistics import median

from confluent_kafka import Consumer, KafkaError

from market_data_pipeline.publication.topic import CONFIGURATION
from market_data_pipeline_tests.publication.helpers import a_kafka, a_window
from market_data_pipeline_tests.services.kafka_broker import KafkaCluster, kafka_configs

ROUNDS = 5
TICKERS, WINDOWS_OF_A_SESSION = 50, 16
YEAR, EIGHT_DAYS, WEEK = 250, 6, 5  # in sessions

# Compacts what took a year in a moment.
AT_ONCE = {
    "min.compaction.lag.ms": "1",
    "segment.ms": "1000",
    "delete.retention.ms": "1",
    "min.cleanable.dirty.ratio": "0.01",
}

_numbers = count()


def knows_the_market(address: str, topic: str) -> tuple[float, int, int]:
    """Seconds until a cold consumer is at the end of the topic, tickers it knows, events it got."""
    started = time.perf_counter()
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": f"cold-{next(_numbers)}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    prices: dict[str, float] = {}
    at_end: set[int | None] = set()
    events = 0
    while len(at_end) < 4:
        for message in consumer.consume(1000, timeout=0.05):
            error = message.error()
            if error is None:
                quote = json.loads(message.value() or b"")
                prices[quote["ticker"]] = quote["price"]
                events += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end.add(message.partition())
    seconds = time.perf_counter() - started
    consumer.close()
    return seconds, len(prices), events


def publish(address: str, topic: str, sessions: int) -> None:
    publisher = a_kafka(address, topic, topic)
    for window in range(sessions * WINDOWS_OF_A_SESSION):
        publisher.publish(a_window(window, TICKERS))


def configure(address: str, topic: str, configuration: dict[str, str]) -> None:
    settings = ",".join(f"{name}={value}" for name, value in configuration.items())
    kafka_configs(address, "--alter", "--topic", topic, "--add-config", settings)


def kept(address: str, topic: str, sessions: int) -> None:
    """A topic that deletes nothing."""
    publish(address, topic, sessions)
    configure(address, topic, {"cleanup.policy": "delete", "retention.ms": "-1"})


def compacted(address: str, topic: str, sessions: int) -> None:
    """A topic as the pipeline creates it, that long after."""
    publish(address, topic, 1)
    configure(address, topic, AT_ONCE)
    publish(address, topic, sessions - EIGHT_DAYS - 1)
    time.sleep(2)
    publish(address, topic, 1)  # closes the segments
    while knows_the_market(address, topic)[2] > 2 * WINDOWS_OF_A_SESSION * TICKERS:
        time.sleep(1)
    configure(address, topic, CONFIGURATION)
    publish(address, topic, EIGHT_DAYS)


def emptied(address: str, topic: str, sessions: int) -> None:
    """A topic whose retention is over."""
    publish(address, topic, sessions)
    configure(address, topic, {"cleanup.policy": "delete", "retention.ms": "1"})
    while knows_the_market(address, topic)[2]:
        time.sleep(1)


def main() -> None:
    """Prints a table."""
    properties = {"log.cleaner.backoff.ms": "500", "log.retention.check.interval.ms": "500"}
    ways = {
        "compacted, as created here; a year of windows": (compacted, YEAR),
        "everything kept; a year of windows": (kept, YEAR),
        "deleted after a week (the broker's default); a week of windows": (kept, WEEK),
        "the same, a week after the last window": (emptied, WEEK),
    }
    print("| topic | events on it | tickers known | seconds |\n| --- | ---: | ---: | ---: |")
    with (
        tempfile.TemporaryDirectory() as folder,
        KafkaCluster(Path(folder) / "cluster", properties=properties) as cluster,
    ):
        for number, (name, (make, sessions)) in enumerate(ways.items()):
            address, topic = cluster.bootstrap_servers, f"market-{number}"
            make(address, topic, sessions)
            runs = [knows_the_market(address, topic) for _ in range(ROUNDS)]
            _, tickers, events = runs[0]
            print(f"| {name} | {events:,} | {tickers} | {median(run[0] for run in runs):.2f} |")


if __name__ == "__main__":
    main()
