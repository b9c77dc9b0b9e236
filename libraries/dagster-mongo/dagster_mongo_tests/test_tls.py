"""A server that takes only TLS connections, with a certificate of its own making."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_mongo import MongoConnectionError, MongoResource

pytestmark = pytest.mark.services


class TlsFront:
    """Takes TLS connections on a port of its own, and passes on what they say."""

    def __init__(self, server: str, certificate: Path, key: Path) -> None:
        self._host, port = server.split("/")[2].split(":")
        self._port = int(port)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, outward = await asyncio.open_connection(self._host, self._port)
        await asyncio.gather(_pass_on(reader, outward), _pass_on(onward, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        "-subj /CN=mongo -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "certificate.pem"


@pytest.fixture
def front(real_mongo: str, certificate: Path) -> Iterator[TlsFront]:
    front = TlsFront(real_mongo, certificate, certificate.with_name("key.pem"))
    yield front
    front.close()


def resource(front: TlsFront, options: str) -> MongoResource:
    return MongoResource(
        uri=f"mongodb://127.0.0.1:{front.port}/?directConnection=true{options}",
        database="dagster_mongo_tests",
        server_selection_timeout_seconds=2,
    )


def test_settings_of_the_address_are_enough(front: TlsFront, certificate: Path) -> None:
    mongo = resource(front, f"&tls=true&tlsCAFile={certificate}")
    try:
        collection = mongo.get_collection("tls")
        collection.replace_one({"_id": 1}, {"price": 35.5}, upsert=True)
        assert collection.find_one({"_id": 1}) == {"_id": 1, "price": 35.5}
        collection.drop()
    finally:
        mongo.close()


def test_an_unknown_certificate_is_named(front: TlsFront) -> None:
    with pytest.raises(MongoConnectionError, match=r"certificate verify failed.*tlsCAFile"):
        resource(front, "&tls=true").get_client()


def test_a_connection_without_tls_is_named(front: TlsFront) -> None:
    with pytest.raises(MongoConnectionError, match="tls=true"):
        resource(front, "").get_client()
