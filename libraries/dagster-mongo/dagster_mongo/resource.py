"""The connection: one client for all resources of a process that have the same settings."""

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, unquote

import dagster as dg
from pydantic import Field, PrivateAttr
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.driver_info import DriverInfo
from pymongo.errors import ConfigurationError

from dagster_mongo.errors import MongoConnectionError, MongoSettingsError
from dagster_mongo.translation import translated

__all__ = ["MongoResource"]

Document = dict[str, Any]


class _Shared:
    """A client, open as long as a resource refers to this."""

    def __init__(self, client: MongoClient[Document]) -> None:
        self.client = client
        weakref.finalize(self, client.close)


_open: weakref.WeakValueDictionary[str, _Shared] = weakref.WeakValueDictionary()
_lock = RLock()


def _shared(key: str, connect: Callable[[], MongoClient[Document]]) -> _Shared:
    """The open client of these settings, or a new one."""
    with _lock:
        shared = _open.get(key)
        if shared is None:
            shared = _open[key] = _Shared(connect())
        return shared


class MongoResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A MongoDB database, for assets and ops to use directly or through an I/O manager.

    The client is made when it is first asked for and closed when the run's step ends, failed or
    not; resources with the same settings share one. Give either `uri`, which is a secret and
    appears in no message, no `repr` and not in the UI, or `host`. Outside Dagster, a `with`
    statement closes the client: `with MongoResource(uri=..., database="shop") as mongo: ...`.
    """

    uri: str | None = Field(
        default=None,
        description="A connection string, `mongodb://` or `mongodb+srv://`, with or without"
        " credentials. Takes the place of `host` and `port`.",
        json_schema_extra={"dagster__is_secret": True},
        repr=False,
    )
    host: str | None = Field(
        default=None, description="The server's host name; takes the place of `uri`."
    )
    port: int = Field(default=27017, description="The server's port; goes with `host`.")
    database: str | None = Field(
        default=None,
        description="The database that `get_database` returns. Default: the one in the path of"
        " `uri`.",
    )
    timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How long the server may take for an answer before it is given up. An option"
        " `timeoutMS` or `socketTimeoutMS` of `uri` goes before it.",
    )
    server_selection_timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        description="How long to look for a server before it is given up. The same option of `uri`"
        " goes before it.",
    )
    client_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Any further option of `pymongo.MongoClient`, by its name there, such as"
        " `tls`, `maxPoolSize`, `retryWrites`, `readPreference` or `readConcernLevel`.",
        json_schema_extra={"dagster__is_secret": True},
        repr=False,
    )

    _client: _Shared | None = PrivateAttr(default=None)

    def __enter__(self) -> Self:
        """The resource itself, for use outside Dagster."""
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def get_client(self) -> MongoClient[Document]:
        """The client of this resource, connected.

        Raises:
            MongoSettingsError: The address or an option makes no sense.
            MongoConnectionError: No server answered in time, or there is no such host.
            MongoAuthenticationError: The server refused the credentials.
        """
        if self._client is None:
            # A client does not survive a fork, so the process is a part of its settings.
            key = repr((os.getpid(), self.uri, self.host, self.port, self._options()))
            self._client = _shared(key, self._connect)
        return self._client.client

    @contextmanager
    def get_connection(self) -> Iterator[MongoClient[Document]]:
        """The client, with pymongo's errors as this library's: `get_client` in `errors_in_words`.

        It stays open until the step ends. Raises what both raise.
        """
        with self.errors_in_words():
            yield self.get_client()

    def get_database(self) -> Database[Document]:
        """The database of the `database` field, or of the address. Raises as `get_client`."""
        return self.get_client()[self.database_name]

    def get_collection(self, name: str) -> Collection[Document]:
        """A collection of that database by its name. Raises as `get_client`.

        What its own methods raise is pymongo's, outside of `errors_in_words`.
        """
        return self.get_database()[name]

    @contextmanager
    def errors_in_words(self) -> Iterator[None]:
        """Turn pymongo's errors within the context into this library's: sentences without secrets.

        Raises:
            MongoConnectionError: There is no server, or it was lost.
            MongoAuthenticationError: The credentials were refused, or allow too little.
            MongoOperationError: The server refused a command.
        """
        with translated(self.address):
            yield

    def close(self) -> None:
        """Close the client, unless another resource still uses it. Dagster calls this."""
        self._client = None

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the client at the end of a step. Dagster calls this."""
        self.close()

    @property
    def address(self) -> str:
        """The hosts of the server, without credentials and options: safe to show.

        Raises:
            MongoSettingsError: Neither `uri` nor `host` is set, or both are.
        """
        if bool(self.uri) == bool(self.host):
            raise MongoSettingsError(
                "Set either `uri` or `host` of MongoResource"
                + (", not both." if self.uri else ": it has no address.")
            )
        return _parts(self.uri).hosts if self.uri else f"{self.host}:{self.port}"

    @property
    def database_name(self) -> str:
        """The name of the database.

        Raises:
            MongoSettingsError: Neither `database` nor the address has one.
        """
        name = self.database or (_parts(self.uri).database if self.uri else "")
        if not name:
            raise MongoSettingsError(
                "MongoResource has no database: set `database`, or name it in the path of `uri`."
            )
        return name

    def _connect(self) -> MongoClient[Document]:
        address = self.address
        client = self._new_client()
        try:
            with translated(address):
                client.admin.command("ping", read_preference=client.read_preference)
        except BaseException:
            client.close()
            raise
        return client

    def _options(self) -> dict[str, Any]:
        options = dict(self.client_options)
        given = _parts(self.uri).options if self.uri else {}
        given |= {name.lower(): value for name, value in self.client_options.items()}
        if "serverselectiontimeoutms" not in given:
            seconds = self.server_selection_timeout_seconds
            options["serverSelectionTimeoutMS"] = round(seconds * 1000)
        if "sockettimeoutms" not in given:
            # Not timeoutMS: with it, pymongo does not pass wtimeoutMS on.
            limit = str(given.get("timeoutms", ""))  # pymongo itself refuses what is no number
            is_given = limit.isdigit() and int(limit) > 0
            options["socketTimeoutMS"] = (
                int(limit) if is_given else round(self.timeout_seconds * 1000)
            )
        return options

    def _new_client(self) -> MongoClient[Document]:
        options = {"driver": DriverInfo("dagster-mongo"), **self._options()}
        try:
            if self.uri:
                return MongoClient(self.uri, **options)
            return MongoClient(self.host, self.port, **options)
        except (ConfigurationError, OSError, TypeError, ValueError) as error:
            if type(error.__context__).__module__.startswith("dns."):  # of a mongodb+srv address
                raise MongoConnectionError(
                    f"No such host in the MongoDB address {self.address}: {self._safe(error)}"
                ) from None
            raise MongoSettingsError(
                f"MongoDB's client does not accept these settings: {self._safe(error)}"
            ) from None

    def _safe(self, error: Exception) -> str:
        """An error's message, unless the password is in it."""
        message = str(error)
        credentials = _parts(self.uri).credentials if self.uri else ""
        passwords = credentials.partition(":")[2], str(self.client_options.get("password", ""))
        if any(p and (p in message or unquote(p) in message) for p in passwords):
            return "the reason is withheld, it shows the password."
        return message


class _Parts(NamedTuple):
    credentials: str
    hosts: str
    database: str
    options: dict[str, Any]


def _parts(uri: str) -> _Parts:
    """What a connection string consists of.

    Raises:
        MongoSettingsError: It is none, or its credentials are not escaped.
    """
    scheme, separator, rest = uri.partition("://")
    address, _, query = rest.partition("?")
    authority, _, path = address.partition("/")
    # Options may have an @ of their own, but if it is the only one, it ended the credentials.
    astray = "@" in path or authority.count("@") > 1 or ("@" in query and "@" not in authority)
    if not separator or not scheme.startswith("mongodb") or astray:
        raise MongoSettingsError(
            "The uri of MongoResource is no valid connection string. Special characters in the user"
            " name and the password have to be percent-encoded (urllib.parse.quote_plus)."
        )
    credentials, _, hosts = authority.rpartition("@")
    options = {name.lower(): value for name, value in parse_qsl(query)}
    return _Parts(credentials, hosts, unquote(path).partition(".")[0], options)
