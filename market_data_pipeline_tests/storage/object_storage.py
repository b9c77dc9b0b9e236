"""Object storage for the tests: a real S3 server on loopback, and a way to it that is watched."""

import http.client
import os
import socket
import subprocess
import threading
from collections import Counter
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from market_data_pipeline_tests.services.go_program import go_program
from market_data_pipeline_tests.serving import serving
from market_data_pipeline_tests.supervised import free_ports, wait_until

MODULE, VERSION = "github.com/versity/versitygw", "v1.8.0"
ACCESS_KEY, SECRET_KEY = "access-key-of-the-tests", "S3cret/key+of=the+tests"


class ObjectStorage:
    """The server and its proxy; a context manager.

    Args:
        folder: holds the objects, each bucket a folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, str]] = []
        """The method and the path of each request, in the order in which they came."""
        self.is_stalling = False
        """Whether the upload of a window stops half-way, until its client is gone."""
        self.is_read_only = False
        """Whether uploads are refused, as by a policy."""
        self.half_way = threading.Event()
        """An upload has stopped."""
        (self._port,) = free_ports(1)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        program = str(go_program(MODULE, VERSION))
        (self.folder / "metadata").mkdir(parents=True)
        buckets = self.folder / "buckets"
        buckets.mkdir()
        command = [program, "--port", f"127.0.0.1:{self._port}", "--quiet", "--keep-alive", "posix"]
        with (self.folder / "server.log").open("wb") as log:
            self._server = subprocess.Popen(
                [*command, "--sidecar", str(self.folder / "metadata"), str(buckets)],
                env=os.environ | {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_up, "the S3 server is up")
        proxy = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://{self._stack.enter_context(serving(proxy))}"
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._server.kill()
        self._server.wait()

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process that uses it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def make_bucket(self, name: str) -> None:
        """Makes an empty bucket."""
        import s3fs

        options = {"endpoint_url": self.url}
        s3fs.S3FileSystem(key=ACCESS_KEY, secret=SECRET_KEY, client_kwargs=options).mkdir(name)

    def objects(self, bucket: str) -> dict[str, int]:
        """What is in a bucket, as the server has it on disk: sizes by key."""
        folder = self.folder / "buckets" / bucket
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.stat().st_size for path in files}

    def counted(self) -> Counter[str]:
        """How many requests of each kind came since it was last asked: GET, LIST, PUT, others."""
        found, self.requests = self.requests, []
        return Counter("LIST" if "list-type" in path else method for method, path in found)

    def _is_up(self) -> bool:
        assert self._server.poll() is None, (self.folder / "server.log").read_text()
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self._port)) == 0

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        storage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response_only(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _pass_on(self) -> None:
                storage.requests.append((self.command, self.path))
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if storage.is_read_only and self.command == "PUT":
                    self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
                    return
                server = http.client.HTTPConnection("127.0.0.1", storage._port, timeout=60)
                # The signature covers the host that the client knows.
                server.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    server.putheader(name, value)
                server.endheaders()
                if storage.is_stalling and self.command == "PUT" and ".parquet" in self.path:
                    server.send(body[: len(body) // 2])
                    storage.half_way.set()
                    self.connection.recv(1)
                    self.close_connection = True
                    server.close()
                    return
                server.send(body)
                answer = server.getresponse()
                content = answer.read()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                server.close()

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

        return Handler
