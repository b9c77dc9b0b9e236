"""Events to publish, and eyes that see what was published."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import TradingWindows
from market_data_pipeline.publication.event import Event, quote_event
from market_data_pipeline.publication.kafka import Kafka
from market_data_pipeline.settings import Settings

WINDOW_START = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)


def a_kafka(address: str, topic: str, transactional_id: str = "", /, **settings: Any) -> Kafka:
    """A topic to publish to, with other settings of KAFKA_… by the rest of their names.

    Without a transactional id it publishes without a transaction.
    """
    settings = {
        "bootstrap_servers": address,
        "topic": topic,
        "transactional_id": transactional_id,
        "transactions": bool(transactional_id),
        **settings,
    }
    return Kafka(Settings(**{f"kafka_{name}": value for name, value in settings.items()}))


def a_quote(ticker: str = "PETR4", window: int = 0, **changes: Any) -> Quote:
    """A live quote in the `window`-th window of a day."""
    start = WINDOW_START + timedelta(minutes=30 * window)
    fields: dict[str, object] = {
        "ticker": ticker,
        "name": "Petróleo Brasileiro S.A. - Petrobras",
        "short_name": "PETROBRAS PN",
        "price": 35.5,
        "volume": 15234567,
        "updated_at": start + timedelta(minutes=29, seconds=58),
        "window_start": start,
        "window_end": start + timedelta(minutes=30),
        "observed_at": start + timedelta(minutes=30, seconds=5),
        "source": "live",
        "requested_ticker": ticker,
    }
    return Quote(**{**fields, **changes})


def quote(key: str, ticker: str = "PETR4", **changes: Any) -> Quote:
    """A live quote of the window with a key."""
    window = TradingWindows().from_key(key)
    times = {"window_start": window.start, "window_end": window.end, "updated_at": window.end}
    times["observed_at"] = window.end + timedelta(seconds=20)
    return a_quote(ticker, **(times | changes))


def a_window(window: int = 0, size: int = 50) -> list[Event]:
    """The events of one window, one a ticker."""
    return [quote_event(a_quote(f"TICK{n}", window)) for n in range(size)]


@dataclass(frozen=True)
class Seen:
    """One message as a consumer got it."""

    partition: int
    offset: int
    event: Event

    @property
    def ce_id(self) -> str:
        return dict(self.event.headers)["ce_id"].decode()


def read(
    bootstrap_servers: str,
    topic: str,
    isolation: str = "read_committed",
    *,
    open_transaction: bool = False,
) -> list[Seen]:
    """Everything that a consumer can see on a topic, in the order of each partition.

    Without an open transaction: the end of one that was committed may take the broker a moment
    more to write, and is waited for. With one, a `read_committed` consumer gets no further than to
    its start.
    """
    uncommitted = _consumer(bootstrap_servers, "read_uncommitted")
    partitions = uncommitted.list_topics(topic, timeout=10).topics[topic].partitions
    ends = {
        partition: uncommitted.get_watermark_offsets(TopicPartition(topic, partition), 10)[1]
        for partition in partitions
    }
    consumer = _consumer(bootstrap_servers, isolation)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
    seen: list[Seen] = []
    while ends:
        message = consumer.poll(30)
        assert message is not None, f"{topic} did not answer"
        error = message.error()
        if error is None:
            headers = cast(list[tuple[str, bytes]], message.headers())
            event = Event(message.key() or b"", message.value() or b"", tuple(headers))
            seen.append(Seen(message.partition() or 0, message.offset() or 0, event))
        elif error.code() != KafkaError._PARTITION_EOF:
            raise AssertionError(error)
        elif open_transaction or (message.offset() or 0) >= ends[message.partition() or 0]:
            del ends[message.partition() or 0]
    consumer.close()
    return seen


def _consumer(bootstrap_servers: str, isolation: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "tests",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            # By default the broker holds each answer back for 500 ms, in case more is coming.
            "fetch.wait.max.ms": 10,
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )


def create_topic(
    bootstrap_servers: str, topic: str, replicas: int = 1, config: Mapping[str, str] | None = None
) -> None:
    """Makes a topic as somebody else would."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    new = NewTopic(topic, 4, replicas, config=dict(config or {}))
    admin.create_topics([new])[topic].result()


def producer_that(before_produce: Callable[[int], None]) -> type[Producer]:
    """A producer that calls back before it takes its n-th message, counted from 0."""

    class Observed(Producer):
        taken = 0

        def produce(self, *arguments: Any, **options: Any) -> None:
            before_produce(self.taken)
            super().produce(*arguments, **options)
            self.taken += 1

    return Observed


def roll_back(bootstrap_servers: str, topic: str, events: Sequence[Event]) -> None:
    """Sends events in a transaction that is rolled back when all of them are on the topic."""
    settings = {"bootstrap.servers": bootstrap_servers, "transactional.id": f"{topic}-rolled-back"}
    producer = Producer({**settings, "partitioner": "murmur2_random"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for event in events:
        producer.produce(topic, event.value, event.key, headers=list(event.headers))
    assert producer.flush(30) == 0
    producer.abort_transaction(30)
