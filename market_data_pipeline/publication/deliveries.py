"""The account of one publication: what the broker acknowledged, and what it did not."""

from __future__ import annotations

from confluent_kafka import KafkaError, Message

_PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)


class Deliveries:
    """Counts delivery reports; `report` is what the producer calls for each message."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.failures: list[tuple[str, KafkaError]] = []
        """Key and reason of each message that was not acknowledged, in order."""
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}

    def report(self, error: KafkaError | None, message: Message) -> None:
        """Takes one delivery report; those of one partition come in the order of its offsets."""
        if error is not None:
            self.refuse(message.key() or b"", error)
            return
        self.acknowledged += 1
        partition, offset = message.partition() or 0, message.offset() or 0
        self._first.setdefault(partition, offset)
        self._last[partition] = offset

    def refuse(self, key: bytes, error: KafkaError) -> None:
        """Takes down a message that is not going to be acknowledged."""
        self.failures.append((key.decode(), error))

    @property
    def offsets(self) -> dict[int, tuple[int, int]]:
        """The first and last offset of each partition written to."""
        return {
            partition: (self._first[partition], self._last[partition])
            for partition in sorted(self._first)
        }

    @property
    def reason(self) -> KafkaError | None:
        """The first failure that the broker caused, not our own giving up."""
        reasons = (error for _, error in self.failures if error.code() not in _PURGED)
        return next(reasons, None)
