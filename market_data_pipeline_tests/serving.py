"""Servers in the process of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import TCPServer
from threading import Thread


@contextmanager
def serving(server: TCPServer) -> Iterator[str]:
    """Serves in the background, and returns host and port; the end comes within 10 ms."""
    Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
