"""What can go wrong, each with a message that says what to do, and none with a password."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pymongo import errors

_AUTHENTICATION_CODES = {18, 8000}  # the second is what Atlas answers
_UNAUTHORIZED = 13
_SHOWN_FAILURES = 5
_NO_SUCH_HOST = (  # what the resolvers of Linux, macOS and Windows say
    "Name or service not known",
    "No address associated",
    "Temporary failure in name resolution",
    "nodename nor servname",
    "getaddrinfo failed",
)


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
    """The DataFrame cannot be stored. Raised before anything is written."""


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


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn pymongo's errors into this library's, without the causes that could show a secret.

    Args:
        address: The server's address as it may be shown, without credentials.

    Raises:
        MongoAuthenticationError: The credentials were refused, or allow too little.
        MongoConnectionError: There is no such host, no server, or the connection broke.
        MongoOperationError: The server refused the command for another reason.
    """
    try:
        yield
    except errors.ServerSelectionTimeoutError as error:
        raise MongoConnectionError(_not_there(address, error)) from None
    except errors.ConnectionFailure as error:
        raise MongoConnectionError(
            f"The connection to MongoDB at {address} was lost: {error}. Storing again completes"
            " what was interrupted."
        ) from None
    except errors.OperationFailure as error:
        reason = (error.details or {}).get("errmsg", "no reason given")
        if error.code in _AUTHENTICATION_CODES:
            raise MongoAuthenticationError(
                f"MongoDB at {address} refused the credentials. Check the user name, the password"
                " and authSource."
            ) from None
        if error.code == _UNAUTHORIZED:
            raise MongoAuthenticationError(f"MongoDB at {address} forbids it: {reason}") from None
        raise MongoOperationError(
            f"MongoDB at {address} refused (code {error.code}): {reason}"
        ) from None


def _not_there(address: str, error: errors.ServerSelectionTimeoutError) -> str:
    reason = str(error).split(" (configured timeouts")[0].split(", Timeout:")[0]
    if any(sign in reason for sign in _NO_SUCH_HOST):
        return f"No such host in the MongoDB address {address}: {reason}. Check its spelling."
    if "SSL" in reason:
        return (
            f"The TLS handshake with MongoDB at {address} failed: {reason}. Name its authority in"
            " `tlsCAFile`; without `tls=true` there is none."
        )
    hint = " If it takes only TLS, set `tls=true`." if "connection closed" in reason else ""
    return f"No MongoDB server answered at {address}: {reason}. Is it running, and reachable?{hint}"
