"""The exceptions of this library. Each message says what to do, and none shows a password."""

import re
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

_DUPLICATE_KEY = 11000
_MOST_CHARACTERS = 500
# "… index: ticker_1 dup key: …" of MongoDB, "… index 'ticker_1'" of others.
_INDEX = re.compile(r"index:? '?(.+?)'?(?: dup key| collation|$)")


class DagsterMongoError(Exception):
    """Every error that this library raises on purpose."""


class MongoSettingsError(DagsterMongoError):
    """A resource field or a metadata setting is missing, unknown or contradictory."""


class MongoConnectionError(DagsterMongoError):
    """No server answered: not there, no such host, too slow, or the connection was lost."""


class MongoAuthenticationError(MongoConnectionError):
    """The server answered, and refused the credentials or what they may do."""


class MongoOperationError(DagsterMongoError):
    """The server refused a command, for example an index that conflicts with an existing one."""


class MongoFrameError(DagsterMongoError):
    """The value cannot be stored. Raised before a document is written."""


class MongoLoadError(DagsterMongoError):
    """What the collection holds does not fit the columns that were asked for."""


class MongoBulkWriteError(DagsterMongoError):
    """The server refused some documents; the others are written.

    The message has the code and the text of the first refusal, and never a document.

    Attributes:
        collection: The collection's name; None if that is not known.
        failures: The `_id`, `code` and `message` of each refused document, and the `index` that
            refuses it as a duplicate.
        attempted: How many documents were to be written; 0 if that is not known.
    """

    def __init__(
        self, collection: str | None, details: Mapping[str, Any], ids: Sequence[Any] = ()
    ) -> None:
        self.collection = collection
        self.attempted = len(ids)
        self.failures = [_failure(error, ids) for error in details.get("writeErrors", [])]
        self._unconfirmed = [*_unconfirmed(details)]
        super().__init__(" ".join([*self._refusals(), *self._unconfirmed]))

    @property
    def is_of_other_writers(self) -> bool:
        """Whether all were refused since another writer has written documents of these ids."""
        return not self._unconfirmed and all(
            failure["code"] == _DUPLICATE_KEY and failure["index"] in ("_id_", None)
            for failure in self.failures
        )

    def _refusals(self) -> Iterator[str]:
        if not self.failures:
            return
        first, attempted = self.failures[0], f" of {self.attempted}" if self.attempted else ""
        which = f", the first with the _id {first['_id']!r}" if self.attempted else ""
        where = f"The collection {self.collection!r}" if self.collection else "MongoDB"
        yield (
            f"{where} refused {len(self.failures)}{attempted} documents"
            f"{which} (code {first['code']}: {first['message'].rstrip('.')})."
        )
        if first["code"] == _DUPLICATE_KEY and not self.is_of_other_writers:
            yield (
                f"Its unique index {first['index']!r} allows no two documents with these values:"
                " drop the index, or remove the documents that have them already."
            )
        elif first["code"] == _DUPLICATE_KEY:
            yield "Other runs write the same documents at this moment: store again."


def _failure(error: Mapping[str, Any], ids: Sequence[Any]) -> dict[str, Any]:
    message = str(error.get("errmsg") or "no reason given")
    index = _INDEX.search(message) if error.get("code") == _DUPLICATE_KEY else None
    return {
        "_id": ids[error["index"]] if ids else None,
        "code": error.get("code"),
        "message": message[:_MOST_CHARACTERS],
        "index": index[1] if index else None,
    }


def _unconfirmed(details: Mapping[str, Any]) -> Iterator[str]:
    for error in details.get("writeConcernErrors", [])[:1]:
        reason = str(error.get("errmsg") or "no reason given").rstrip(".")
        yield (
            f"The write concern was not met (code {error.get('code')}: {reason}): the documents may"
            " be written. Check the members of the replica set, or ask for fewer with `w`."
        )
