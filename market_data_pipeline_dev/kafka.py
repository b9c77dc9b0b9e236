"""Kafka within this process: librdkafka's mock cluster. It keeps its topics in memory.

It has no controller, shows aborted messages to `read_committed`, and fences no producer: what
depends on these needs a real broker.
"""

import contextlib
from collections.abc import Iterator

from confluent_kafka.admin import AdminClient


@contextlib.contextmanager
def embedded_kafka() -> Iterator[str]:
    """Runs a Kafka of one's own until the context ends; yields its bootstrap servers."""
    # A client that asks for mock brokers holds them, and talks to them instead of to others.
    holder = AdminClient({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = holder.list_topics(timeout=30).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    del holder
