"""Kafka as a resource of Dagster: publishes a window of events, all of them or none."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message

from market_data_pipeline.publication.client import Client
from market_data_pipeline.publication.errors import FENCED, PublicationError, described
from market_data_pipeline.publication.event import Event
from market_data_pipeline.publication.topic import find_or_create
from market_data_pipeline.runs.results import some
from market_data_pipeline.settings import Settings

logger = logging.getLogger(__name__)

Offsets = dict[int, tuple[int, int]]
"""The first and last offset written, by partition."""

_FULL_QUEUE_SECONDS = 0.05
_ABORT_SECONDS = 5.0
_PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)


@dataclass(frozen=True)
class Kafka:
    """The Kafka topic that the prices are published to, as the settings say.

    Example:
        ```python
        import dagster as dg
        from market_data_pipeline.publication.event import Event
        from market_data_pipeline.publication.kafka import Kafka
        from market_data_pipeline.settings import Settings

        @dg.asset
        def greeting(kafka: dg.ResourceParam[Kafka]) -> None:
            kafka.publish([Event(key=b"PETR4", value=b"{}", headers=())])

        settings = Settings(kafka_bootstrap_servers="localhost:9092")
        defs = dg.Definitions([greeting], resources={"kafka": Kafka(settings)})
        ```
    """

    settings: Settings
    _ready: list[_Transaction] = field(default_factory=list, init=False, repr=False, compare=False)

    def connect(self) -> str:
        """Connects, so that the next `publish` need not, and creates nothing.

        Returns:
            Why nothing can be published now; empty if it can.
        """
        try:
            with ExitStack() as unless_connected:
                ready = unless_connected.enter_context(closing(_Transaction(self.settings)))
                ready.connect()
                unless_connected.pop_all()
        except PublicationError as error:
            return f"Kafka is not ready: {error}"
        self._ready.append(ready)
        return ""

    def publish(self, events: Iterable[Event]) -> Offsets:
        """Publishes events to the topic, in one transaction unless KAFKA_TRANSACTIONS is false.

        Args:
            events: taken once the transaction has begun. From then on, no transaction that began
                before can be committed: what is read then is not published after something newer.

        Returns:
            Where they are. Every in-sync replica has acknowledged each of them, and with a
            transaction they are committed.

        Raises:
            PublicationError: no `read_committed` consumer sees any of them, except where the text
                says otherwise.
        """
        ready = self._ready.pop() if self._ready else _Transaction(self.settings)
        with closing(ready) as transaction:
            return transaction.run(events)


class _Transaction(Client):
    """Finds the topic, begins a transaction, produces, sees all acknowledged, commits."""

    def run(self, events: Iterable[Event]) -> Offsets:
        self._pending: dict[int, str] = {}
        """The keys of the events that are not acknowledged, by their numbers."""
        self._errors: list[KafkaError] = []
        self._offsets: dict[int, list[int]] = defaultdict(list)
        self.start()
        find_or_create(self)
        if self.settings.transactional_id:
            self._begin()
        self._deliver(events)
        if self.settings.transactional_id:
            self._commit()
        return {
            partition: (min(offsets), max(offsets))
            for partition, offsets in sorted(self._offsets.items())
        }

    def _begin(self) -> None:
        """Fences every older run of this transactional id and opens a transaction."""
        try:
            self.call("init_transactions")
            self.producer.begin_transaction()
        except KafkaException as exception:
            raise self.failure(
                f"Kafka opened no transaction for {self.settings.transactional_id}",
                exception.args[0],
                "check that transaction.state.log.min.isr brokers are up, and that "
                "transaction.state.log.replication.factor does not exceed the brokers",
            ) from None

    def _deliver(self, events: Iterable[Event]) -> None:
        """Hands all events to the brokers and sees each acknowledged, or aborts."""
        try:
            all_of_them = [*events]
            self._pending = {n: event.key.decode() for n, event in enumerate(all_of_them)}
            for number, event in enumerate(all_of_them):
                self._produce(number, event)
            while self._pending and not self._is_hopeless():
                self.serve("flush")
        except BaseException:
            self._abort()
            raise
        if self._pending:
            error = self._reason()
            self._abort()
            raise self._not_acknowledged(len(all_of_them), error)

    def _produce(self, number: int, event: Event) -> None:
        """Queues an event, unless there is no hope for all of them."""
        while not self._is_hopeless():
            try:
                self.producer.produce(
                    self.settings.kafka_topic,
                    value=event.value,
                    key=event.key,
                    headers=list(event.headers),
                    on_delivery=partial(self._report, number),
                )
                return
            except BufferError:
                self.serve("poll", _FULL_QUEUE_SECONDS)
            except KafkaException as exception:
                self._errors.append(exception.args[0])

    def _report(self, number: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._errors.append(error)
            return
        del self._pending[number]
        self._offsets[message.partition() or 0].append(message.offset() or 0)

    def _is_hopeless(self) -> bool:
        return bool(self._errors) or self.seconds_left() <= 0

    def _reason(self) -> KafkaError | None:
        """Why not all was acknowledged, as far as it is known."""
        known = next((each for each in self._errors if each.code() not in _PURGED), None)
        if known is None and self._errors and self.settings.transactional_id:
            # The transaction has failed and librdkafka has dropped what was queued. It tells the
            # reason when it is asked for the commit that it can no longer make.
            try:
                self.producer.commit_transaction(1.0)
            except KafkaException as exception:
                known = exception.args[0]
        return known

    def _not_acknowledged(self, count: int, error: KafkaError | None) -> PublicationError:
        keys = [*self._pending.values()]
        fate = (
            "the transaction is rolled back and consumers see none of them"
            if self.settings.transactional_id
            else f"they may be on the topic, the other {count - len(keys)} are"
        )
        return self.failure(
            f"{len(keys)} of {count} events were not acknowledged by Kafka at "
            f"{self.settings.kafka_bootstrap_servers}, {some(keys, most=5)}; {fate}",
            error,
        )

    def _commit(self) -> None:
        """Commits the transaction, which makes the events visible."""
        try:
            self.call("commit_transaction", to_end=True)
        except KafkaException as exception:
            error = exception.args[0]
            if error.txn_requires_abort():
                self._abort()
                what = f"The transaction {self.settings.transactional_id} was not committed"
                raise self.failure(what, error) from None
            again = "materialize kafka_publication again; consumers drop repeats by their ce_id"
            raise self.failure(
                "Kafka did not confirm the commit, so the events may or may not be on the topic",
                error,
                advise="" if error.code() in FENCED else again,
            ) from None

    def _abort(self) -> None:
        """Takes back what was sent, as far as the brokers can still be told."""
        if not self.settings.transactional_id:
            return
        seconds = max(0.5, min(_ABORT_SECONDS, self.seconds_to_end()))
        try:
            self.producer.abort_transaction(seconds)
        except KafkaException as exception:
            reason = described(exception.args[0])
            logger.warning("Not rolled back (%s): the broker does it at its time-out.", reason)
