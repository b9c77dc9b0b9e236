"""The command `brapi-sandbox` as a process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from brapi_sandbox import __version__

SAID = re.compile(r"brapi-sandbox, made-up prices: (http://127\.0\.0\.1:\d+)\n")
COMMAND = [sys.executable, "-m", "brapi_sandbox"]


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address, as its first line of output says it."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            match = re.fullmatch(
                r"brapi-sandbox, made-up prices: (http://127\.0\.0\.1:\d+)\n", said
            )
            assert match, said
            yield process, match[1]
        finally:
            process.kill()


def get(url: str, token: str = "right") -> requests.Response:
    return requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=5)


def test_its_settings() -> None:
    arguments = ["--port", "0", "--plan", "startup", "--remaining", "7", "--token", "right"]
    arguments += ["--tickers", "wxyz3,QWER4", "--usage-window", "rolling-30d", "--latency", "0.01"]
    with started(*arguments) as (_, url):
        answer = get(f"{url}/api/quote/WXYZ3,QWER4,GGBR4")
        assert [each["symbol"] for each in answer.json()["results"]] == ["WXYZ3", "QWER4", "GGBR4"]
        assert answer.headers["x-ratelimit-remaining"] == "6"
        assert answer.headers["Server"] == f"brapi-sandbox/{__version__}"
        usage = get(f"{url}/api/v2/user/usage").json()["usage"]
        assert (usage["planName"], usage["usageWindow"]["type"]) == ("startup", "rolling-30d")
        assert get(f"{url}/api/quote/WXYZ3", token="wrong").status_code == 401


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_good_order(number: signal.Signals) -> None:
    with started("--port", "0") as (process, url):
        with requests.Session() as kept_alive:
            assert kept_alive.get(f"{url}/api/quote/PETR4", timeout=5).ok
            process.send_signal(number)
            output, errors = process.communicate(timeout=10)
        assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only there 127.0.0.2 leads to this machine")
def test_it_listens_on_the_loopback_address_alone() -> None:
    with started("--port", "0") as (_, url):
        port = int(url.rpartition(":")[2])
        # A server of all addresses would take this.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, timeout=30)
    said = f"Port {port} cannot be used (Address already in use): choose another --port.\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", said)


@pytest.mark.parametrize(
    "arguments", [["--port", "70000"], ["--remaining", "-1"], ["--latency", "x"], ["--plan", "x"]]
)
def test_a_wrong_argument(arguments: list[str]) -> None:
    ran = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 2
    assert f"argument {arguments[0]}: invalid" in ran.stderr
