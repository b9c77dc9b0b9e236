"""A Kafka producer as the settings describe it, with a deadline, whose errors are sentences."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import ClusterMetadata  # type: ignore[attr-defined]

from market_data_pipeline.publication.errors import (
    NO_ANSWER,
    REFUSED_CREDENTIALS,
    PublicationError,
    advice,
    described,
)
from market_data_pipeline.settings import KAFKA_CONFIG, Settings

logger = logging.getLogger(__name__)

# A blocking call is asked to block for no longer: meanwhile a run cannot be terminated, and nobody
# hears what librdkafka complains of.
_SLICE_SECONDS = 0.5
# This part of the time is kept back for the end of a transaction.
_RESERVE = 0.1

_INSTEAD = {
    "bootstrap.servers": "set KAFKA_BOOTSTRAP_SERVERS instead",
    "default.topic.config": "set each property of the topic by its own name instead",
    "metadata.broker.list": "set KAFKA_BOOTSTRAP_SERVERS instead",
    "transactional.id": "set KAFKA_TRANSACTIONAL_ID instead",
}
_RESERVED = {
    *_INSTEAD,
    "acks",
    "allow.auto.create.topics",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "request.required.acks",
    "retries",
    "transaction.timeout.ms",
}


def variable(name: str) -> str:
    """The variable that sets a property: KAFKA_CONFIG_SASL_USERNAME for `sasl.username`."""
    return KAFKA_CONFIG + name.upper().replace(".", "_")


def without_values(text: str, properties: Mapping[str, str], shortest: int = 4) -> str:
    """`text` with the variable's name for each value of `properties`: any may be a secret.

    Values shorter than `shortest` stay, as they may be a part of what is said.
    """
    for name in sorted(properties, key=lambda name: -len(properties[name])):
        if len(properties[name]) >= shortest:
            value = re.escape(properties[name])
            text = re.sub(rf"(?<![\w.]){value}(?!\w|\.\w)", variable(name), text)
    return text


def given_properties(settings: Settings) -> dict[str, str]:
    """The librdkafka properties of KAFKA_CONFIG_…, secrets among them.

    Raises:
        PublicationError: the guarantees of a publication rest on one of them.
    """
    given = settings.kafka_client_properties
    for name in _RESERVED.intersection(given):
        why = "the publication's guarantees rest on it, so it is not configurable"
        raise PublicationError(f"{variable(name)} may not be set: {_INSTEAD.get(name, why)}.")
    return {name: value.get_secret_value() for name, value in given.items()}


def connection_properties(settings: Settings) -> dict[str, Any]:
    """The properties that any client of the cluster needs. Raises as `given_properties`."""
    given = given_properties(settings)
    # What matters comes through the error callback: the log repeats it many times a second.
    quiet = {} if "debug" in given else {"log_level": "0"}
    return {**quiet, **given, "bootstrap.servers": settings.kafka_bootstrap_servers}


def producer_properties(settings: Settings) -> dict[str, Any]:
    """Those of the producer that publishes. Raises as `given_properties`."""
    bound_ms = max(1000, int(settings.kafka_timeout_seconds * 1000))
    properties: dict[str, Any] = {
        "client.id": "market-data-pipeline",
        # With the default of 100 ms the first connection alone waits for 50 ms.
        "reconnect.backoff.ms": 10,
        "reconnect.backoff.max.ms": 1000,
        **connection_properties(settings),
        "acks": "all",
        "enable.idempotence": True,
        "message.timeout.ms": bound_ms,
        # They are a second apart. When they are used up the error has the broker's reason; when
        # the time is up first it has not.
        "message.send.max.retries": max(3, int(settings.kafka_timeout_seconds * 0.6)),
        # The choice of the Java clients: a ticker lands where a Java service would put it.
        "partitioner": "murmur2_random",
        "allow.auto.create.topics": False,
    }
    if settings.transactional_id:
        properties["transactional.id"] = settings.transactional_id
        properties["transaction.timeout.ms"] = bound_ms
    return properties


class Client:
    """A producer for one publication, and the time it has.

    Raises:
        PublicationError: librdkafka does not take its properties.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._hidden = given_properties(settings)
        self._connected = False
        self.start()
        try:
            self.producer = Producer(
                {**producer_properties(settings), "error_cb": self.note_complaint}
            )
        except KafkaException as exception:
            reason = without_values(exception.args[0].str(), self._hidden, shortest=1)
            raise PublicationError(
                f"Kafka's client does not take its settings: {reason}."
            ) from None

    def start(self) -> None:
        """Restarts the time limit, and forgets what librdkafka complained of."""
        self._end = time.monotonic() + self.settings.kafka_timeout_seconds
        self._complaints: dict[int, KafkaError] = {}

    def connect(self) -> ClusterMetadata:
        """Connects to a broker, and returns what `metadata` does. Raises as `metadata`."""
        if not self._connected:
            # This answer comes over a connection to the bootstrap address, which librdkafka then
            # drops. Without one to a broker it would put the transaction off by 500 ms.
            self.metadata()
            self._connected = True
        return self.metadata()

    def close(self) -> None:
        """Drops the producer and its connections now: it is part of a reference cycle."""
        del self.producer

    def seconds_left(self) -> float:
        """The seconds left to get all events acknowledged."""
        return self.seconds_to_end() - _RESERVE * self.settings.kafka_timeout_seconds

    def seconds_to_end(self) -> float:
        """The seconds left, with those for the end of the transaction."""
        return self._end - time.monotonic()

    def metadata(self) -> ClusterMetadata:
        """What the cluster says of itself and of the topic.

        Raises:
            PublicationError: it refuses the credentials, or says nothing in time.
        """
        try:
            answer: ClusterMetadata = self.call("list_topics", self.settings.kafka_topic)
        except KafkaException as exception:
            failed = f"could not be reached within {self.settings.kafka_timeout_seconds:g} s"
            raise self.failure(
                f"Kafka at {self.settings.kafka_bootstrap_servers} "
                + ("rejected this client" if self._is_refused else failed),
                exception.args[0],
                "check that it runs and that KAFKA_BOOTSTRAP_SERVERS and "
                "KAFKA_CONFIG_SECURITY_PROTOCOL are right",
            ) from None
        return answer

    def call(self, method: str, *arguments: object, to_end: bool = False) -> Any:
        """Calls a method of the producer that can be resumed, until it succeeds or time is up.

        It takes a name, as the method itself would hold the producer: the frames of an error
        outlive `close`, and a producer that lives on gets its transaction later, which ends that
        of the next run. With `to_end`, the time that is kept for the end is used, too.

        Raises:
            KafkaException: it failed for good, or the time is up.
        """
        left = self.seconds_to_end if to_end else self.seconds_left
        while True:
            try:
                return getattr(self.producer, method)(*arguments, _slice(left()))
            except KafkaException as exception:
                self.serve("poll", 0.01)
                error = exception.args[0]
                unanswered = error.retriable() or error.code() in NO_ANSWER
                in_vain = self._is_refused and not to_end
                if in_vain or not unanswered or left() <= 0:
                    raise

    def serve(self, method: str, seconds: float = _SLICE_SECONDS) -> None:
        """Calls `poll` or `flush`, which call back; a fatal error is one more complaint."""
        try:
            getattr(self.producer, method)(min(seconds, _slice(self.seconds_left())))
        except KafkaException as exception:
            self.note_complaint(exception.args[0])
        except SystemError as error:
            # So a fatal error comes where a delivery report follows it. Without a cause the binding
            # has lost it; the delivery reports tell what became of the messages.
            if isinstance(error.__cause__, KafkaException):
                self.note_complaint(error.__cause__.args[0])
            elif error.__cause__ is not None:
                raise

    def note_complaint(self, error: KafkaError) -> None:
        """Takes what librdkafka calls back with: an error that it may get over."""
        if error.code() not in self._complaints:
            logger.warning("%s", without_values(described(error), self._hidden))
        self._complaints.pop(error.code(), None)  # so that the latest one is the last
        self._complaints[error.code()] = error

    def failure(
        self, what: str, error: KafkaError | None, otherwise: str = "", *, advise: str = ""
    ) -> PublicationError:
        """The error that says what happened, why, and what to do.

        A time-out is explained by what librdkafka complained of. What to do is `advise`, or what
        the error itself says, or `otherwise`.
        """
        if error is None or error.code() in NO_ANSWER:
            error = self._complaint or error
        do = advise or advice(error, self.settings.kafka_bootstrap_servers, otherwise)
        reason = without_values(described(error), self._hidden)
        return PublicationError(f"{what} ({reason}): {do}.")

    @property
    def _is_refused(self) -> bool:
        return any(code in self._complaints for code in REFUSED_CREDENTIALS)

    @property
    def _complaint(self) -> KafkaError | None:
        """The complaint that says most: of access, or the last one of anything but the obvious."""
        complaints = dict(self._complaints)
        complaints.pop(KafkaError._ALL_BROKERS_DOWN, None)
        access = filter(None, map(complaints.get, (KafkaError._SSL, *REFUSED_CREDENTIALS)))
        return next(access, None) or next(reversed(complaints.values()), None)


def _slice(left: float) -> float:
    return max(0.01, min(_SLICE_SECONDS, left))
