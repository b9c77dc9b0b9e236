"""A Kafka producer with a deadline, that says in one sentence what is wrong."""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Callable, Mapping

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import ClusterMetadata  # type: ignore[attr-defined]

from market_data_pipeline.publication.errors import (
    AccessRefusedError,
    BrokerUnreachableError,
    ConfigurationError,
    OutcomeUnknownError,
    PublicationError,
    meaning,
)
from market_data_pipeline.publication.properties import without_values

logger = logging.getLogger(__name__)

# A blocking call of the producer cannot be interrupted: none is asked to block for longer.
_SLICE_SECONDS = 0.5
# How long a broker may take to accept a connection once the time is up.
_PROBE_SECONDS = 1.0
_ADDRESS = re.compile(r"^(?:\w+://)?\[?(.*?)\]?(?::(\d+))?$")
_DEFAULT_PORT = 9092
# How librdkafka names a broker that the cluster told it of: `host:port/1: …`. It may drop the
# bootstrap connection for that one before it has answered what was asked.
_LEARNED = re.compile(r"^(?:\w+://)?(\S+:\d+)/\d+: ")
# This part of the time is kept back for rolling a transaction back.
_RESERVE = 0.1
# What a wait that has used all its time may leave of it.
_NO_TIME = 0.1
_ADVERTISED = (
    "set advertised.listeners of the broker to an address that can be reached from this machine"
)
_DURATION = re.compile(r" \(after \d+ ?ms.*\)$")


class Client:
    """A producer, the time it has, and what it complained of.

    Args:
        config: its librdkafka properties.
        seconds: how long it may take for everything.
        hidden: those of the properties whose values no text may show.

    Raises:
        ConfigurationError: it does not take the properties.
    """

    def __init__(
        self, config: Mapping[str, object], seconds: float, hidden: Mapping[str, str]
    ) -> None:
        self._config, self._hidden = config, hidden
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._troubles: dict[int, KafkaError] = {}
        self._advertised: set[str] = set()
        try:
            self.producer = Producer({**config, "error_cb": self._note_trouble})
        except KafkaException as exception:
            reason = without_values(exception.args[0].str(), hidden, shortest=1)
            raise ConfigurationError(
                f"Kafka's client does not take its settings: {reason}."
            ) from None

    def close(self) -> None:
        """Drops the producer and its connections now: it is part of a reference cycle."""
        del self.producer

    def left(self) -> float:
        """The seconds left for work."""
        return self.left_to_the_end() - _RESERVE * self._seconds

    def left_to_the_end(self) -> float:
        """The seconds left, with those kept back for rolling back."""
        return self._end - time.monotonic()

    def slice(self) -> float:
        """The seconds that the next blocking call may take."""
        return max(0.01, min(_SLICE_SECONDS, self.left()))

    def poll(self, seconds: float) -> None:
        """Waits for something to happen, and has the callbacks called for it."""
        self._attend(self.producer.poll, seconds)

    def flush(self, seconds: float) -> None:
        """Waits until the fate of every message is known."""
        self._attend(self.producer.flush, seconds)

    def metadata(self, topic: str) -> ClusterMetadata:
        """What the cluster says of itself and of a topic, as soon as it says anything.

        Raises:
            AccessRefusedError: it refuses the credentials.
            BrokerUnreachableError: it says nothing in time.
        """
        while True:
            try:
                answer: ClusterMetadata = self.producer.list_topics(topic, timeout=self.slice())
                brokers = answer.brokers.values()
                self._advertised |= {f"{broker.host}:{broker.port}" for broker in brokers}
                return answer
            except KafkaException as exception:
                self._fail_if_not_let_in()
                if self.left() <= 0:
                    raise self.unreachable(
                        "could not be reached",
                        exception.args[0],
                        "check that it runs and that KAFKA_BOOTSTRAP_SERVERS and "
                        "KAFKA_CONFIG_SECURITY_PROTOCOL are right",
                    ) from None

    def insist(self, call: Callable[[float], object], left: Callable[[], float]) -> None:
        """Makes a call that can be resumed, and resumes it while time is left.

        The call must not hold the producer: the frames of an error outlive `close`, and a producer
        that lives on gets its transaction later, which ends that of the next run.

        Raises:
            KafkaException: it failed for good, or the time is up.
        """
        while True:
            try:
                call(max(0.01, min(_SLICE_SECONDS, left())))
                return
            except KafkaException as exception:
                self.poll(0.01)
                if not exception.args[0].retriable() or left() <= 0:
                    raise

    @property
    def fatal(self) -> KafkaError | None:
        """What the producer can never recover from, if there is such a thing."""
        return next((error for error in self._troubles.values() if error.fatal()), None)

    @property
    def trouble(self) -> KafkaError | None:
        """What it complained of that says most: of TLS, or last of anything but the obvious."""
        troubles = dict(self._troubles)
        troubles.pop(KafkaError._ALL_BROKERS_DOWN, None)
        return troubles.get(KafkaError._SSL) or next(reversed(troubles.values()), None)

    def unreachable(self, what: str, error: KafkaError, advice: str) -> PublicationError:
        """The error for brokers that did not answer while there was time."""
        reason = self.trouble or error
        kind, known_advice = meaning(reason)
        return self.explain(
            BrokerUnreachableError,
            f"Kafka at {self._config['bootstrap.servers']} {what} within {self._seconds:g} s",
            named(reason),
            known_advice if kind is BrokerUnreachableError else advice,
        )

    def refusal(
        self,
        what: str,
        error: KafkaError,
        otherwise: type[PublicationError] = PublicationError,
    ) -> PublicationError:
        """The error for what Kafka answered; `otherwise` where the answer has none of its own."""
        kind, advice = meaning(error)
        kind = otherwise if kind is PublicationError else kind
        return self.explain(kind, what, named(error), advice)

    def explain(
        self, kind: type[PublicationError], what: str, reason: str, advice: str
    ) -> PublicationError:
        """An error of that kind: what happened, why, and what to do, and no secret.

        Where the time is up because the brokers advertise an address that leads nowhere, that is
        the reason.
        """
        time_is_up = self.left() < _NO_TIME and kind is not OutcomeUnknownError
        if time_is_up and (found := self._advertised_in_vain()):
            kind, reason, advice = BrokerUnreachableError, found, _ADVERTISED
        return kind(self._clean(f"{what} ({reason}): {advice}."))

    def _advertised_in_vain(self) -> str | None:
        """Which broker's own address cannot be reached, and why; None if there is no such broker.

        An address of KAFKA_BOOTSTRAP_SERVERS is right: its broker is down, not misconfigured.
        """
        servers = str(self._config["bootstrap.servers"]).split(",")
        configured = [address.strip() for address in servers]
        if all(map(self._why_unreachable, configured)):
            return None
        for address in sorted(self._advertised.difference(configured)):
            if why := self._why_unreachable(address):
                return f"the broker advertises {address}, which cannot be reached: {why}"
        return None

    def _why_unreachable(self, address: str) -> str | None:
        """Why no connection to `host:port` can be opened; None if one can."""
        host, port = _ADDRESS.findall(address)[0]
        seconds = max(0.1, min(_PROBE_SECONDS, self.left_to_the_end()))
        try:
            socket.create_connection((host, int(port or _DEFAULT_PORT)), seconds).close()
        except OSError as error:
            return str(error.strerror or error)
        return None

    def _fail_if_not_let_in(self) -> None:
        self.poll(0.01)
        for error in self._troubles.values():
            if meaning(error)[0] is AccessRefusedError:
                server = self._config["bootstrap.servers"]
                raise self.refusal(f"Kafka at {server} rejected this client", error)

    def _attend(self, call: Callable[[float], object], seconds: float) -> None:
        try:
            call(seconds)
        except KafkaException as exception:  # a fatal error comes this way too
            self._note_trouble(exception.args[0])
        except SystemError as error:  # or, where a delivery report follows it, this way
            if isinstance(error.__cause__, KafkaException):
                self._note_trouble(error.__cause__.args[0])
            elif error.__cause__ is not None:
                raise
            # Without a cause the binding has lost it; the delivery reports tell what became of
            # the messages.

    def _note_trouble(self, error: KafkaError) -> None:
        self._advertised.update(_LEARNED.findall(error.str()))
        if error.code() not in self._troubles:
            logger.warning("%s", self._clean(named(error)))
        self._troubles.pop(error.code(), None)  # so that the latest one is the last
        self._troubles[error.code()] = error

    def _clean(self, text: str) -> str:
        return without_values(text, self._hidden)


def named(error: KafkaError) -> str:
    """An error's name and text: `NOT_ENOUGH_REPLICAS: Broker: Not enough in-sync replicas`."""
    return f"{error.name()}: {_DURATION.sub('', error.str())}"
