"""Each of pymongo's errors becomes a sentence of this library's."""

import inspect
from typing import Any

import pytest
from bson.errors import InvalidBSON
from pymongo import errors

from dagster_mongo import (
    DagsterMongoError,
    MongoAuthenticationError,
    MongoBulkWriteError,
    MongoConnectionError,
    MongoOperationError,
    MongoSettingsError,
)
from dagster_mongo.translation import translated

ARGUMENTS: dict[type[Exception], list[Any]] = {  # of those that take no mere reason
    errors.BulkWriteError: [{"writeErrors": [{"index": 0, "code": 1, "errmsg": "the reason."}]}],
    errors.ClientBulkWriteException: [{"error": errors.AutoReconnect("the reason")}, False],
    errors.EncryptedCollectionError: [Exception("the reason"), {}],
    errors.EncryptionError: [Exception("the reason")],
}

# With the document, as the driver has it.
REFUSED = {
    "writeErrors": [
        {
            "index": 3,
            "code": 11000,
            "errmsg": "E11000 duplicate key error collection: a.b index: ticker_1 dup key: { x: 1}",
            "op": {"ticker": "a whole document"},
        }
    ]
}


def raised(error: Exception) -> DagsterMongoError:
    with pytest.raises(DagsterMongoError) as caught, translated("db:27017"):
        raise error
    assert caught.value.__suppress_context__
    return caught.value


def every_error() -> list[Any]:
    classes = {e for _, e in inspect.getmembers(errors, inspect.isclass)}
    found = sorted((e for e in classes if issubclass(e, errors.PyMongoError)), key=str)
    return [pytest.param(e, id=e.__name__) for e in found]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_is_a_sentence(kind: Any) -> None:
    message = str(raised(kind(*ARGUMENTS.get(kind, ["the reason"]))))
    assert message[0].isupper()
    assert message.endswith((".", "?"))
    assert ".." not in message


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (errors.NetworkTimeout("slow"), MongoConnectionError, "did not answer in time"),
        (errors.NotPrimaryError("gone"), MongoConnectionError, "Storing again completes"),
        (errors.AutoReconnect("gone"), MongoConnectionError, "Storing again completes"),
        (errors.OperationFailure("x", 18), MongoAuthenticationError, "Check the user name"),
        (errors.OperationFailure("bad auth : x", 8000), MongoAuthenticationError, "bad auth : x"),
        (
            errors.OperationFailure("you are over your space quota", 8000, {"ok": 0}),
            MongoOperationError,
            "refused (code 8000): you are over your space quota",
        ),
        (errors.BulkWriteError(REFUSED), MongoBulkWriteError, "unique index 'ticker_1'"),
        (errors.OperationFailure("x", 13), MongoAuthenticationError, "forbids it: x"),
        (errors.OperationFailure("x", 189), MongoOperationError, "Storing again completes"),
        (errors.OperationFailure("x", 86), MongoOperationError, "Drop the existing index"),
        (errors.ExecutionTimeout("x", 50), MongoOperationError, "raise timeoutMS"),
        (errors.WTimeoutError("x", 64), MongoOperationError, "The data may be written"),
        (errors.CursorNotFound("x", 43), MongoOperationError, "Load again"),
        (
            errors.ConfigurationError("x"),
            MongoSettingsError,
            "does not accept a setting or a name: x",
        ),
        (errors.InvalidName("x"), MongoSettingsError, "or a name: x"),
        (errors.DocumentTooLarge("x"), MongoOperationError, "x (DocumentTooLarge)"),
        (errors.EncryptionError(Exception("x")), MongoOperationError, "x (EncryptionError)"),
        (InvalidBSON("x"), MongoOperationError, "cannot be read: x"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_is_said(error: Exception, kind: type[Exception], message: str) -> None:
    found = raised(error)
    assert type(found) is kind
    assert message in str(found)
    assert "a whole document" not in str(found)
