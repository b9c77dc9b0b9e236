"""Kafka in one process: librdkafka's mock cluster. It keeps its topics in memory.

    python -m market_data_pipeline_dev.kafka --address-file FILE

It has no controller, shows aborted messages to `read_committed`, and fences no producer: what
depends on these needs a real broker.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Producer

from market_data_pipeline_dev.process import (
    announced,
    stand_in,
    stand_in_parser,
    stop_on_signals,
)

NAME = "The embedded Kafka"


@contextlib.contextmanager
def embedded_kafka() -> Iterator[str]:
    """Runs a Kafka of one's own in a process, until the context ends.

    Returns:
        Its bootstrap servers.

    Raises:
        ChildDiedError: it did not come up.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        stand_in("kafka", Path(folder)) as bootstrap_servers,
    ):
        yield bootstrap_servers


def main() -> int:
    """Holds the cluster until it is stopped."""
    options = stand_in_parser(NAME).parse_args()
    # A client that asks for mock brokers holds them, and talks to them instead of to others.
    holder = Producer({"bootstrap.servers": "ignored", "test.mock.num.brokers": 1})
    brokers = holder.list_topics(timeout=30).brokers.values()
    bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    stop_on_signals()
    announcement = announced(NAME, bootstrap_servers, options.address_file)
    with contextlib.suppress(KeyboardInterrupt), announcement:
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
