"""Publishes a window of events: all of them or, in the eyes of `read_committed`, none."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException

from market_data_pipeline.publication.client import Client, named
from market_data_pipeline.publication.deliveries import Deliveries
from market_data_pipeline.publication.errors import (
    OTHERWISE,
    ConfigurationError,
    FencedError,
    NotAcknowledgedError,
    OutcomeUnknownError,
    PublicationError,
    TopicMissingError,
    meaning,
)
from market_data_pipeline.publication.event import Event
from market_data_pipeline.publication.properties import refuse_reserved
from market_data_pipeline.publication.topic import create, is_missing

logger = logging.getLogger(__name__)

# Serving the delivery reports now and then keeps memory flat; each time costs a system call.
_EVENTS_PER_POLL = 1000
_FULL_QUEUE_SECONDS = 0.05
_ROLL_BACK_SECONDS = 5.0
# How many events an error names.
_NAMED = 5


@dataclass(frozen=True)
class Publication:
    """What became of one call of `Publisher.publish`."""

    topic: str
    published: int
    """Events acknowledged by every in-sync replica and, with transactions, committed."""
    transactional_id: str | None
    offsets: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The first and last offset written, by partition."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent by phase: connect, begin, produce, acknowledge, commit."""


class Publisher:
    """Publishes events to one topic.

    Args:
        bootstrap_servers: addresses of brokers, `host:port` with commas between them.
        topic: where the events go.
        transactional_id: the same for every run that publishes here, so that a newer run fences
            a hung older one. None or empty publishes without a transaction.
        timeout_seconds: bound on a whole publication, whatever the brokers do.
        create_topic: create the topic when it is missing.
        partitions: partitions of a topic created here.
        replication_factor: replicas of a topic created here; -1 is the broker's default.
        config: further librdkafka properties, none that the guarantees rest on.

    Raises:
        ConfigurationError: a setting is missing, or is reserved.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        transactional_id: str | None = None,
        timeout_seconds: float = 60.0,
        create_topic: bool = True,
        partitions: int = 4,
        replication_factor: int = -1,
        config: Mapping[str, str] | None = None,
    ) -> None:
        if not bootstrap_servers:
            raise ConfigurationError(
                "KAFKA_BOOTSTRAP_SERVERS is not set: set it to the brokers' host:port."
            )
        if not topic:
            raise ConfigurationError("KAFKA_TOPIC is empty: set it to the topic to publish to.")
        refuse_reserved(config or {})
        self.bootstrap_servers = bootstrap_servers
        self.topic = topic
        self.transactional_id = transactional_id or None
        self.timeout_seconds = timeout_seconds
        self.create_topic = create_topic
        self.partitions = partitions
        self.replication_factor = replication_factor
        self._config = dict(config or {})

    def publish(self, events: Sequence[Event]) -> Publication:
        """Publishes `events`, in one transaction if there is a transactional id.

        Nothing to publish opens no connection. Otherwise a return means that every event was
        acknowledged, and an error that no `read_committed` consumer sees any of them, except
        where its text says otherwise.

        Raises:
            ConfigurationError: the client or the broker does not take a setting.
            BrokerUnreachableError: no broker answered in time.
            AccessRefusedError: Kafka refused the credentials, or what they ask for.
            TopicMissingError: there is no topic and it may not or cannot be created.
            NotAcknowledgedError: an event was not acknowledged; the error says which.
            FencedError: a newer run has taken over.
            OutcomeUnknownError: the commit was never confirmed.
            PublicationError: anything else that the broker objects to.
        """
        if not events:
            return Publication(self.topic, 0, self.transactional_id)
        client = Client(self._client_config(), self.timeout_seconds, self._config)
        try:
            return _Attempt(self, client).run(events)
        finally:
            client.close()

    def find(self) -> None:
        """Reaches the cluster. It creates nothing; raises as `publish`."""
        client = Client(self._client_config(), self.timeout_seconds, self._config)
        try:
            client.metadata(self.topic)
        finally:
            client.close()

    def connection(self) -> dict[str, str]:
        """The properties that any client of this cluster needs; they hold its secrets."""
        # What matters comes through the error callback: the log repeats it many times a second.
        quiet = {} if "debug" in self._config else {"log_level": "0"}
        return {**quiet, **self._config, "bootstrap.servers": self.bootstrap_servers}

    def _client_config(self) -> dict[str, object]:
        bound_ms = max(1000, int(self.timeout_seconds * 1000))
        config: dict[str, object] = {
            "client.id": "market-data-pipeline",
            # With the default of 100 ms the first connection alone waits for 50 ms.
            "reconnect.backoff.ms": 10,
            "reconnect.backoff.max.ms": 1000,
            **self.connection(),
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": bound_ms,
            # They are a second apart. When they are used up the error has the broker's reason;
            # when the time is up first it has not.
            "message.send.max.retries": max(3, int(self.timeout_seconds * 0.6)),
            # The choice of the Java clients: a ticker lands where a Java service would put it.
            "partitioner": "murmur2_random",
            "allow.auto.create.topics": False,
        }
        if self.transactional_id:
            config["transactional.id"] = self.transactional_id
            config["transaction.timeout.ms"] = bound_ms
        return config


class _Attempt:
    """One publication: find the topic, begin, produce, see all acknowledged, commit."""

    def __init__(self, publisher: Publisher, client: Client) -> None:
        self._publisher = publisher
        self._client = client
        self._deliveries = Deliveries()
        self._seconds: dict[str, float] = {}

    def run(self, events: Sequence[Event]) -> Publication:
        transactional_id = self._publisher.transactional_id
        with self._phase("connect"):
            self._find_topic()
        if transactional_id:
            with self._phase("begin"):
                self._begin()
        self._deliver(events)
        if transactional_id:
            with self._phase("commit"):
                self._commit()
        return Publication(
            self._publisher.topic,
            self._deliveries.acknowledged,
            transactional_id,
            self._deliveries.offsets,
            self._seconds,
        )

    def _find_topic(self) -> None:
        """Reaches the cluster, and creates the topic if it is missing and may be created."""
        publisher, client, topic = self._publisher, self._client, self._publisher.topic
        where = f"Topic {topic} of Kafka at {publisher.bootstrap_servers}"
        metadata = client.metadata(topic)
        try:
            if publisher.create_topic and is_missing(metadata, topic):
                create(
                    topic,
                    publisher.partitions,
                    publisher.replication_factor,
                    connection=publisher.connection(),
                    cluster=metadata,
                    timeout=max(0.1, client.left()),  # a negative one waits forever
                )
            # The first answer came over a connection to the bootstrap address, which the client
            # then drops. Without one to a broker it would put the transaction off by 500 ms.
            while is_missing(client.metadata(topic), topic):
                if not publisher.create_topic or client.left() <= 0:
                    advice = "create it, or let this pipeline create it"
                    raise TopicMissingError(f"{where} does not exist: {advice}.")
                time.sleep(0.05)
        except KafkaException as exception:
            error = exception.args[0]
            raise client.refusal(f"{where} cannot be used", error, TopicMissingError) from None

    def _begin(self) -> None:
        """Fences every older run of this transactional id and opens a transaction."""
        client = self._client
        try:
            client.insist(lambda seconds: client.producer.init_transactions(seconds), client.left)
            client.producer.begin_transaction()
        except KafkaException as exception:
            error = exception.args[0]
            if error.retriable():
                raise client.unreachable(
                    "opened no transaction",
                    error,
                    "check that transaction.state.log.min.isr brokers are up, and that "
                    "transaction.state.log.replication.factor does not exceed the brokers",
                ) from None
            what = f"Kafka opened no transaction for {self._publisher.transactional_id}"
            raise client.refusal(what, error) from None

    def _deliver(self, events: Sequence[Event]) -> None:
        """Hands all events to the brokers and sees each acknowledged, or takes all back."""
        try:
            with self._phase("produce"):
                taken = self._produce(events)
            with self._phase("acknowledge"):
                while self._deliveries.acknowledged < taken and not self._hopeless():
                    self._client.flush(self._client.slice())
        except BaseException:
            self._roll_back()
            raise
        if self._deliveries.acknowledged < len(events):
            error = self._reason()
            self._roll_back()
            raise self._not_acknowledged(events, taken, error)

    def _produce(self, events: Sequence[Event]) -> int:
        """Queues events until there is no hope for all of them; returns how many it took."""
        for number, event in enumerate(events):
            if number % _EVENTS_PER_POLL == 0:
                self._client.poll(0)
            while not self._enqueue(event):
                self._client.poll(_FULL_QUEUE_SECONDS)
                if self._hopeless():
                    return number
            if self._deliveries.failures:
                return number + 1
        return len(events)

    def _enqueue(self, event: Event) -> bool:
        """Queues one event; False when the queue is full and has to be given time."""
        try:
            self._client.producer.produce(
                self._publisher.topic,
                value=event.value,
                key=event.key,
                headers=list(event.headers),
                on_delivery=self._deliveries.report,
            )
        except BufferError:
            return False
        except KafkaException as exception:
            self._deliveries.refuse(event.key, exception.args[0])
        return True

    def _hopeless(self) -> bool:
        client = self._client
        return bool(self._deliveries.failures or client.fatal or client.left() <= 0)

    def _reason(self) -> KafkaError | None:
        """Why not all was acknowledged, as far as it is known."""
        known = self._deliveries.reason or self._client.fatal
        if known is None and self._deliveries.failures and self._publisher.transactional_id:
            # The client dropped what it had queued: its transaction has failed, and it tells the
            # reason when it is asked for the commit that it can no longer make.
            try:
                self._client.producer.commit_transaction(1.0)
            except KafkaException as exception:
                known = exception.args[0]
        return known or self._client.trouble

    def _commit(self) -> None:
        """Commits the transaction, which makes the events visible."""
        client = self._client
        try:
            client.insist(
                lambda seconds: client.producer.commit_transaction(seconds), client.left_to_the_end
            )
        except KafkaException as exception:
            error = exception.args[0]
            what = f"The transaction {self._publisher.transactional_id} was not committed"
            if error.txn_requires_abort():
                self._roll_back()
                raise client.refusal(what, error) from None
            if meaning(error)[0] is FencedError:
                raise client.refusal(what, error) from None
            raise client.explain(
                OutcomeUnknownError,
                f"Kafka did not confirm the commit within {self._publisher.timeout_seconds:g} s "
                "(KAFKA_TIMEOUT_SECONDS), so the events may or may not be on the topic",
                named(client.trouble or error),
                "materialize kafka_publication again; consumers drop repeats by their ce_id",
            ) from None

    def _roll_back(self) -> None:
        """Takes back what was sent, as far as the brokers can still be told."""
        producer, left = self._client.producer, self._client.left_to_the_end()
        try:
            if self._publisher.transactional_id:
                producer.abort_transaction(max(0.5, min(_ROLL_BACK_SECONDS, left)))
        except KafkaException as exception:
            reason = named(exception.args[0])
            logger.warning("Not rolled back (%s): the broker does it by itself.", reason)
        producer.purge()
        self._client.flush(1.0)  # for the reports of what was purged

    def _not_acknowledged(
        self, events: Sequence[Event], taken: int, error: KafkaError | None
    ) -> PublicationError:
        """The error for events of which at least one was not acknowledged."""
        keys = [key for key, _ in self._deliveries.failures]
        keys += [event.key.decode() for event in events[taken:]]
        kind, advice = meaning(error) if error else OTHERWISE
        fate = (
            "the transaction is rolled back and consumers see none of them"
            if self._publisher.transactional_id
            else f"the other {self._deliveries.acknowledged} are on the topic"
        )
        explained = self._client.explain(
            kind,
            f"{len(keys)} of {len(events)} events were not acknowledged by Kafka at "
            f"{self._publisher.bootstrap_servers}, {_few(keys)}; {fate}",
            named(error) if error else "no answer in time",
            advice,
        )
        if kind is PublicationError:
            return NotAcknowledgedError(str(explained), tuple(keys))
        return explained

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - started


def _few(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ", ".join(keys[:_NAMED]) + more
