"""Publishes a window of events: all of them or, in the eyes of `read_committed`, none."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import ClusterMetadata, NewTopic  # type: ignore[attr-defined]

from market_data_pipeline.kafka.deliveries import Deliveries
from market_data_pipeline.kafka.errors import (
    OTHERWISE,
    AccessRefusedError,
    BrokerUnreachableError,
    ConfigurationError,
    FencedError,
    NotAcknowledgedError,
    OutcomeUnknownError,
    PublicationError,
    TopicMissingError,
    meaning,
)
from market_data_pipeline.kafka.event import Event
from market_data_pipeline.kafka.settings import refuse_reserved, without_secrets
from market_data_pipeline.kafka.topic import create, is_missing

logger = logging.getLogger(__name__)

# A blocking call of the client cannot be interrupted: none is asked to block for longer.
_SLICE_SECONDS = 0.5
# Serving the delivery reports now and then keeps memory flat; each time costs a system call.
_EVENTS_PER_POLL = 1000
# How many events an error names.
_NAMED = 5
_DURATION = re.compile(r" \(after \d+ms in state .*\)$")


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
        config: further librdkafka properties, as `settings.config_from_environment` reads them.

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
        return _Attempt(self, self._client_config()).run(events)

    def connection(self) -> dict[str, str]:
        """The properties that any client of this cluster needs; they hold its secrets."""
        return {**self._config, "bootstrap.servers": self.bootstrap_servers}

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
            # The choice of the Java clients: a ticker lands where a Java service would put it.
            "partitioner": "murmur2_random",
            "allow.auto.create.topics": False,
        }
        if "debug" not in config:
            config["log_level"] = 0  # what matters comes through the error callback
        if self.transactional_id:
            config["transactional.id"] = self.transactional_id
            config["transaction.timeout.ms"] = bound_ms
        return config


class _Attempt:
    """One producer, one transaction, one deadline."""

    def __init__(self, publisher: Publisher, config: dict[str, object]) -> None:
        self._publisher = publisher
        self._deliveries = Deliveries()
        self._troubles: dict[int, KafkaError] = {}
        self._seconds: dict[str, float] = {}
        # A tenth of the time is kept back for rolling back.
        self._deadline = time.monotonic() + publisher.timeout_seconds * 0.9
        try:
            self._producer = Producer({**config, "error_cb": self._note_trouble})
        except KafkaException as exception:
            reason = exception.args[0].str()
            raise ConfigurationError(
                self._clean(f"Kafka's client does not take its settings: {reason}.")
            ) from None

    def run(self, events: Sequence[Event]) -> Publication:
        publisher = self._publisher
        try:
            with self._phase("connect"):
                self._find_topic()
            if publisher.transactional_id:
                with self._phase("begin"):
                    self._begin()
            self._deliver(events)
            if publisher.transactional_id:
                with self._phase("commit"):
                    self._commit()
        finally:
            del self._producer  # the error callback holds on to it in a circle
        return Publication(
            publisher.topic,
            self._deliveries.acknowledged,
            publisher.transactional_id,
            self._deliveries.offsets,
            self._seconds,
        )

    def _find_topic(self) -> None:
        """Reaches the cluster, and creates the topic if it is missing and may be created."""
        publisher, topic = self._publisher, self._publisher.topic
        metadata = self._metadata()
        try:
            if is_missing(metadata, topic) and publisher.create_topic:
                new = NewTopic(topic, publisher.partitions, publisher.replication_factor)
                create(new, publisher.connection(), metadata, self._left())
            # The first answer came over a connection to the bootstrap address, which the client
            # then drops. Without one to a broker it would put the transaction off by 500 ms.
            metadata = self._metadata()
            while publisher.create_topic and is_missing(metadata, topic) and self._left() > 0:
                time.sleep(0.05)
                metadata = self._metadata()
            missing = is_missing(metadata, topic)
        except KafkaException as exception:
            raise self._refusal(
                f"Topic {topic} of Kafka at {publisher.bootstrap_servers} cannot be used",
                exception.args[0],
                TopicMissingError,
            ) from None
        if missing:
            raise TopicMissingError(
                f"Topic {topic} does not exist on Kafka at {publisher.bootstrap_servers}: "
                "create it, or let this pipeline create it."
            )

    def _metadata(self) -> ClusterMetadata:
        """What the cluster says of itself and of the topic, as soon as it says anything."""
        while True:
            try:
                return self._producer.list_topics(self._publisher.topic, timeout=self._slice())
            except KafkaException as exception:
                self._serve()
                if self._left() <= 0:
                    raise self._unreachable(
                        "could not be reached",
                        exception.args[0],
                        "check that it runs and that KAFKA_BOOTSTRAP_SERVERS and "
                        "KAFKA_CONFIG_SECURITY_PROTOCOL are right",
                    ) from None

    def _begin(self) -> None:
        """Fences every older run of this transactional id and opens a transaction."""
        try:
            self._insist(self._producer.init_transactions, self._left)
            self._producer.begin_transaction()
        except KafkaException as exception:
            error = exception.args[0]
            if error.retriable():
                raise self._unreachable(
                    "opened no transaction",
                    error,
                    "check that its brokers are up and that it can make __transaction_state "
                    "(transaction.state.log.replication.factor must not exceed the brokers)",
                ) from None
            raise self._refusal(
                f"Kafka opened no transaction for {self._publisher.transactional_id}", error
            ) from None

    def _deliver(self, events: Sequence[Event]) -> None:
        """Hands all events to the brokers and sees each acknowledged, or takes all back."""
        try:
            with self._phase("produce"):
                sent = self._produce(events)
            with self._phase("acknowledge"):
                self._await_acknowledgements(sent)
        except BaseException:
            self._roll_back()
            raise
        if self._deliveries.acknowledged < len(events):
            self._roll_back()
            raise self._not_acknowledged(events, sent)

    def _produce(self, events: Sequence[Event]) -> int:
        """Queues events until one fails or the time is up; returns how many it took."""
        for number, event in enumerate(events):
            if number % _EVENTS_PER_POLL == 0:
                self._producer.poll(0)
            while not self._enqueue(event):
                self._producer.poll(_SLICE_SECONDS / 10)
                if self._hopeless():
                    return number
            if self._deliveries.failures:
                return number + 1
        return len(events)

    def _enqueue(self, event: Event) -> bool:
        """Queues one event; False when the queue is full and has to be given time."""
        try:
            self._producer.produce(
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

    def _await_acknowledgements(self, sent: int) -> None:
        """Waits until all that was sent is acknowledged, one of it failed, or the time is up."""
        while self._deliveries.acknowledged < sent and not self._hopeless():
            self._producer.flush(self._slice())

    def _commit(self) -> None:
        """Commits the transaction, which makes the events visible."""
        try:
            self._insist(self._producer.commit_transaction, self._left_to_the_end)
        except KafkaException as exception:
            error = exception.args[0]
            what = f"The transaction {self._publisher.transactional_id} could not be committed"
            if error.txn_requires_abort():
                self._roll_back()
                raise self._refusal(what, error) from None
            if meaning(error)[0] is FencedError:
                raise self._refusal(what, error) from None
            raise OutcomeUnknownError(
                self._clean(
                    f"Kafka did not confirm the commit ({_named(error)}): the events may or may "
                    "not be on the topic. Run again; consumers know repeats by their ce_id."
                )
            ) from None

    def _roll_back(self) -> None:
        """Takes back what was sent, as far as the brokers can still be told."""
        try:
            if self._publisher.transactional_id:
                self._producer.abort_transaction(max(1.0, self._left_to_the_end()))
        except KafkaException as exception:
            logger.warning(
                "The transaction was not rolled back (%s): the broker does it by itself.",
                _named(exception.args[0]),
            )
        self._producer.purge()
        self._producer.poll(0)

    def _insist(self, call: Callable[[float], object], left: Callable[[], float]) -> None:
        """Makes a call that can be resumed, and resumes it while time is left."""
        while True:
            try:
                call(max(0.01, min(_SLICE_SECONDS, left())))
                return
            except KafkaException as exception:
                self._serve()
                if not exception.args[0].retriable() or left() <= 0:
                    raise

    def _serve(self) -> None:
        """Lets the client tell its troubles.

        Raises:
            AccessRefusedError: one of them is that the credentials are wrong.
        """
        self._producer.poll(0.01)
        for error in self._troubles.values():
            if meaning(error)[0] is AccessRefusedError:
                raise self._refusal("Kafka let this client not in", error) from None

    def _note_trouble(self, error: KafkaError) -> None:
        if error.code() not in self._troubles:
            logger.warning("Kafka: %s", self._clean(_named(error)))
        self._troubles[error.code()] = error

    def _hopeless(self) -> bool:
        return bool(self._deliveries.failures) or self._left() <= 0

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _left_to_the_end(self) -> float:
        return self._left() + self._publisher.timeout_seconds * 0.1

    def _slice(self) -> float:
        return max(0.01, min(_SLICE_SECONDS, self._left()))

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = time.monotonic() - started

    def _not_acknowledged(self, events: Sequence[Event], sent: int) -> PublicationError:
        """The error for events of which at least one was not acknowledged."""
        keys = [key for key, _ in self._deliveries.failures]
        keys += [event.key.decode() for event in events[sent:]]
        error = self._deliveries.reason
        reason = _named(error) if error else self._latest_trouble("no answer in time")
        kind, advice = meaning(error) if error else OTHERWISE
        others = (
            "The transaction is rolled back: consumers see no event of this window"
            if self._publisher.transactional_id
            else f"The other {self._deliveries.acknowledged} are on the topic"
        )
        message = self._clean(
            f"{len(keys)} of {len(events)} events were not acknowledged by Kafka at "
            f"{self._publisher.bootstrap_servers} ({_few(keys)}: {reason}). {others}. "
            f"What to do: {advice}."
        )
        if kind is PublicationError:
            return NotAcknowledgedError(message, tuple(keys))
        return kind(message)

    def _unreachable(self, what: str, error: KafkaError, hint: str) -> PublicationError:
        """The error for brokers that did not answer while there was time."""
        return BrokerUnreachableError(
            self._clean(
                f"Kafka at {self._publisher.bootstrap_servers} {what} within "
                f"{self._publisher.timeout_seconds:g} s "
                f"({self._latest_trouble(_named(error))}): {hint}."
            )
        )

    def _latest_trouble(self, otherwise: str) -> str:
        """What the client complained of last, unless it is only that all brokers are down."""
        told = [e for c, e in self._troubles.items() if c != KafkaError._ALL_BROKERS_DOWN]
        return _named(told[-1]) if told else otherwise

    def _refusal(
        self,
        what: str,
        error: KafkaError,
        otherwise: type[PublicationError] = PublicationError,
    ) -> PublicationError:
        """The error for what Kafka answered; `otherwise` where the answer stands for none."""
        kind, advice = meaning(error)
        if kind is PublicationError:
            kind = otherwise
        return kind(self._clean(f"{what} ({_named(error)}): {advice}."))

    def _clean(self, text: str) -> str:
        return without_secrets(text, self._publisher.connection())


def _named(error: KafkaError) -> str:
    return f"{error.name()}: {_DURATION.sub('', error.str())}"


def _few(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ", ".join(keys[:_NAMED]) + more
