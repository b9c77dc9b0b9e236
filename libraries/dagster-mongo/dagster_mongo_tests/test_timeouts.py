"""A server that stops answering in the middle of a write, while its heartbeats go on."""

import socket
import threading
from collections.abc import Iterator

import pytest

from dagster_mongo import MongoConnectionError, MongoDocumentsIOManager, MongoResource

from .conftest import DATABASE
from .direct import Direct


class Swallowing:
    """Passes on what clients and a server say, but no command that writes."""

    def __init__(self, server: str) -> None:
        host, _, port = server.split("/")[2].partition(":")
        self._server = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=[one, other], daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if b"\2insert\0" not in data:
                    target.sendall(data)
        except OSError:
            pass
        target.close()


@pytest.fixture
def swallowing(uri: str) -> Iterator[str]:
    front = Swallowing(uri)
    yield f"mongodb://127.0.0.1:{front.port}/?directConnection=true"
    front.close()


@pytest.mark.parametrize("options", ["", "&socketTimeoutMS=400", "&timeoutMS=400"])
def test_a_write_that_is_not_answered_ends_in_time(swallowing: str, options: str) -> None:
    direct = Direct(f"{swallowing}{options}", MongoDocumentsIOManager)
    seconds = 0.4 if not options else 3600
    mongo = MongoResource(uri=direct.uri, database=DATABASE, timeout_seconds=seconds)
    direct.manager = MongoDocumentsIOManager(mongo=mongo)
    direct.metadata = {"mongo/mode": "upsert"}
    with pytest.raises(MongoConnectionError, match=r"did not answer in time.*Storing again"):
        direct.store([{"_id": "a"}])
    mongo.close()
    direct.mongo.close()
