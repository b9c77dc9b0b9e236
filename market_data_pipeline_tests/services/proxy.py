"""A way to a server that can be cut: a TCP proxy on the loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

from market_data_pipeline_tests.supervised import free_ports


class Proxy:
    """Passes on what comes to its port; a context manager.

    Args:
        target: host and port of the server.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        (self.port,) = free_ports(1)
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def open(self) -> None:
        """Takes connections from now on."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def cut(self) -> None:
        """Ends all connections and refuses new ones."""
        _end(self._listener)
        with self._lock:
            for end in self._ends:
                _end(end)
            self._ends.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with self._lock:
                    if listener.fileno() < 0:
                        _end(client)
                        return
                    server = socket.create_connection(self._target)
                    self._ends |= {client, server}
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=[one, other], daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with self._lock:
            self._ends -= {source, target}
        _end(source)
        _end(target)


def _end(one: socket.socket) -> None:
    # Closing alone does not wake a thread that waits for it.
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
