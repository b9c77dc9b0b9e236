"""What is started without a word of where to listen can be reached from this machine alone."""

from __future__ import annotations

import re
import socket
import sys

import pytest
from brapi_sandbox.sandbox import serve


@pytest.mark.skipif(sys.platform != "linux", reason="only there 127.0.0.2 leads to this machine")
def test_no_stand_in_listens_beyond_the_loopback(bootstrap_servers: str, mongo_server: str) -> None:
    with serve() as sandbox:
        for address in (bootstrap_servers, mongo_server, sandbox.url):
            host, port = re.findall(r"([\d.]+):(\d+)", address)[0]
            assert host == "127.0.0.1"
            socket.create_connection((host, int(port))).close()
            # A server of all addresses would take this.
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", int(port)))
