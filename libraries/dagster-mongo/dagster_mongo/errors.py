"""The exceptions of this library. Each message says what to do, and none shows a password."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = [
    "DagsterMongoError",
    "MongoAuthenticationError",
    "MongoBulkWriteError",
    "MongoConnectionError",
    "MongoFrameError",
    "MongoLoadError",
    "MongoOperationError",
    "MongoSettingsError",
]

_SHOWN_FAILURES = 5


class DagsterMongoError(Exception):
    """Every error that this library raises on purpose."""


class MongoSettingsError(DagsterMongoError):
    """A resource field or a metadata setting is missing, unknown or contradictory."""


class MongoConnectionError(DagsterMongoError):
    """No server answered: not there, no such host, or the connection was lost."""


class MongoAuthenticationError(MongoConnectionError):
    """The server answered, and refused the credentials or what they may do."""


class MongoOperationError(DagsterMongoError):
    """The server refused a command, for example an index that conflicts with an existing one."""


class MongoFrameError(DagsterMongoError):
    """The value cannot be stored. Raised before a document is written."""


class MongoLoadError(DagsterMongoError):
    """What the collection holds does not fit the columns that were asked for."""


class MongoBulkWriteError(DagsterMongoError):
    """The server refused some documents of a store; the others are written.

    Attributes:
        collection: The collection's name.
        failures: One entry for each refused document: `_id`, `code` and `message`.
        attempted: How many documents were in the bulk write.
    """

    def __init__(self, collection: str, details: Mapping[str, Any], ids: Sequence[Any]) -> None:
        self.collection = collection
        self.attempted = len(ids)
        self.failures = [
            {"_id": ids[e["index"]], "code": e.get("code"), "message": e.get("errmsg", "")}
            for e in details.get("writeErrors", [])
        ]
        super().__init__(" ".join([*self._refusals(), *_unconfirmed(details)]))

    def _refusals(self) -> Iterator[str]:
        if not self.failures:
            return
        first = self.failures[:_SHOWN_FAILURES]
        shown = "; ".join(f"_id={failure['_id']!r}: {failure['message']}" for failure in first)
        rest = len(self.failures) - _SHOWN_FAILURES
        yield (
            f"{len(self.failures)} of {self.attempted} documents were refused by collection"
            f" {self.collection!r}: {shown}{f'; and {rest} more' if rest > 0 else ''}."
        )


def _unconfirmed(details: Mapping[str, Any]) -> Iterator[str]:
    for error in details.get("writeConcernErrors", []):
        yield f"The write concern was not met: {error.get('errmsg', 'no reason given')}."
