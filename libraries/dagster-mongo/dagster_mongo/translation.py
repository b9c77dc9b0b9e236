"""pymongo's errors to this library's, without the causes that could show a secret."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import BSONError
from pymongo import errors

from dagster_mongo.errors import (
    DagsterMongoError,
    MongoAuthenticationError,
    MongoBulkWriteError,
    MongoConnectionError,
    MongoOperationError,
    MongoSettingsError,
)

__all__ = ["translated"]

_AGAIN = "Storing again completes what was interrupted."
_NO_SUCH_HOST = (  # what the resolvers of Linux, macOS and Windows say
    "Name or service not known",
    "No address associated",
    "Temporary failure in name resolution",
    "nodename nor servname",
    "getaddrinfo failed",
)
_UNAUTHORIZED, _AUTHENTICATION_FAILED = 13, 18
_ATLAS = 8000  # a password, a quota, a rate: only the text says which
# What to do about an error code of the server.
_ADVICE = {
    43: "The server gave up the cursor, which was idle for long. Load again.",
    50: "It took longer than allowed: raise timeoutMS in the address, or add an index.",
    64: f"The data may be written. Raise wtimeoutMS, or check the members. {_AGAIN}",
    85: "Drop the existing index, or declare it in mongo/indexes as it is.",
    86: "Drop the existing index, or declare it in mongo/indexes as it is.",
    100: "Ask for fewer members with `w`, or start the missing ones.",
    11000: "Remove the duplicates, or the unique index.",
    **dict.fromkeys((91, 112, 189, 11600, 13388), _AGAIN),  # what passes
}


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn pymongo's errors into this library's: a sentence, with the address it may show."""
    try:
        yield
    except (errors.PyMongoError, BSONError) as error:
        raise _translation(address, error) from None


def _translation(address: str, error: errors.PyMongoError | BSONError) -> DagsterMongoError:
    if isinstance(error, errors.ServerSelectionTimeoutError):
        return MongoConnectionError(_not_there(address, error))
    if isinstance(error, errors.ClientBulkWriteException) and error.error:
        return _translation(address, error.error)
    if isinstance(error, errors.BulkWriteError | errors.ClientBulkWriteException):
        return MongoBulkWriteError(None, error.details or {})
    if isinstance(error, errors.OperationFailure):
        return _refusal(address, error)
    if isinstance(error, errors.ConnectionFailure):
        return MongoConnectionError(_lost(address, error))
    if isinstance(error, errors.ConfigurationError | errors.InvalidName):
        return MongoSettingsError(f"MongoDB's client does not accept a setting or a name: {error}.")
    if isinstance(error, BSONError) and not isinstance(error, errors.DocumentTooLarge):
        return MongoOperationError(f"A document of MongoDB at {address} cannot be read: {error}.")
    return MongoOperationError(
        f"MongoDB's client cannot do that at {address}: {error} ({type(error).__name__})."
    )


def _refusal(address: str, error: errors.OperationFailure) -> DagsterMongoError:
    reason = str((error.details or {}).get("errmsg") or error or "no reason given").rstrip(".")
    if error.code == _AUTHENTICATION_FAILED or (error.code == _ATLAS and "bad auth" in reason):
        return MongoAuthenticationError(
            f"MongoDB at {address} refused the credentials ({reason}). Check the user name, the"
            " password and authSource."
        )
    if error.code == _UNAUTHORIZED:
        return MongoAuthenticationError(f"MongoDB at {address} forbids it: {reason}.")
    advice = _ADVICE.get(error.code or 0, "")
    code = "" if error.code is None else f" (code {error.code})"
    return MongoOperationError(
        " ".join(filter(None, [f"MongoDB at {address} refused{code}: {reason}.", advice]))
    )


def _lost(address: str, error: errors.ConnectionFailure) -> str:
    if isinstance(error, errors.NetworkTimeout):
        return f"MongoDB at {address} did not answer in time: {_reason(error)}. {_AGAIN}"
    return f"The connection to MongoDB at {address} was lost: {_reason(error)}. {_AGAIN}"


def _reason(error: errors.ConnectionFailure) -> str:
    """Without what pymongo adds: its time-outs, and the server's whole answer."""
    return re.split(r" \(configured timeouts|, Timeout:|, full error:", str(error))[0]


def _not_there(address: str, error: errors.ServerSelectionTimeoutError) -> str:
    reason = _reason(error)
    if any(sign in reason for sign in _NO_SUCH_HOST):
        return f"No such host in the MongoDB address {address}: {reason}. Check its spelling."
    if "SSL" in reason:
        return (
            f"The TLS handshake with MongoDB at {address} failed: {reason}. Name the file of its"
            " authority's certificate in `tlsCAFile`. A server without TLS needs `tls=false`."
        )
    hint = " If it takes only TLS, set `tls=true`." if "connection closed" in reason else ""
    return f"No MongoDB server answered at {address}: {reason}. Is it running, and reachable?{hint}"
