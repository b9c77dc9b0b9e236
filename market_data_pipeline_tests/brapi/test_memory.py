"""Bodies that are made to fill the memory do not, be they packed, dense or just large.

    python -m market_data_pipeline_tests.brapi.test_memory PLAN REQUESTS ADDRESS …

sends so many requests at the same time to each address, one after the other: for quotes on the plan
`free`, for a month of bars on `pro`. Prints the peak of the process during each, in MiB.
"""

import gzip
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice, product
from pathlib import Path
from string import ascii_uppercase

import pytest

from market_data_pipeline.brapi import client
from market_data_pipeline.brapi.client import ANSWER_OF_A_TICKER, ANSWER_WITHOUT_BARS
from market_data_pipeline.brapi.client import BAR as BAR_BYTES
from market_data_pipeline.brapi.plans import PLANS
from market_data_pipeline.brapi.request_queue import MAX_OPEN_BYTES, MAX_OPEN_REQUESTS
from market_data_pipeline.market.windows import TradingWindows
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TOKEN, brapi_with
from market_data_pipeline_tests.serving import serving
from market_data_pipeline_tests.supervised import ROOT

WINDOW = TradingWindows().from_key(LIVE_ON_TUESDAY)
MONTH = date(2026, 10, 16), date(2026, 11, 16)
MOST_MIB = 300
QUOTE = {
    "currency": "BRL",
    "longName": "Petróleo Brasileiro S.A. - Petrobras",
    "regularMarketPrice": 30.81,
    "regularMarketTime": "2026-11-17T18:00:00.000Z",
    "about": "x" * 1_000,
}
BAR = {"open": 30.1, "high": 30.2, "low": 30.1, "close": 30.2, "volume": 100, "adjustedClose": 30.2}
Answer = Callable[[list[str]], bytes]


def ordinary(tickers: list[str]) -> bytes:
    return json.dumps({"results": [QUOTE | {"symbol": each} for each in tickers]}).encode()


def a_month(tickers: list[str]) -> bytes:
    starts = [1_792_152_000 + day * 86_400 + n * 1_800 for day in range(32) for n in range(16)]
    history = {"usedInterval": "30m", "historicalDataPrice": [BAR | {"date": s} for s in starts]}
    results = [QUOTE | history | {"symbol": each} for each in tickers]
    return json.dumps({"results": results}).encode()


def filled(part: bytes, size: int) -> bytes:
    """JSON of so many bytes, with one part over and over."""
    begin, end = b'{"results": [', b"0]}"
    return begin + part * ((size - len(begin) - len(end)) // len(part)) + end


def hostile(size: int) -> dict[str, bytes]:
    return {
        "packed": gzip.compress(filled(b'{"":{"":[]}},', 60 * 2**20), 1),
        "large": filled(b"0,", 60 * 2**20),
        "objects": filled(b'{"":{"":{}}},', size),
        "lists": filled(b"[[0]],", size),
        "few objects": filled(b'{"":{"":{"":"' + b"x" * 75 + b'"}}},', size),
        "long texts": filled(b'"' + b"x" * 100_000 + "😀".encode() + b'",', size),
        "other texts": filled(b'"' + "😀é".encode() * 9 + b'",', size),
    }


def always(body: bytes) -> Answer:
    return lambda tickers: body


@contextmanager
def answering(answer: Answer, open_requests: int, packed: bool = False) -> Iterator[str]:
    """A server that answers so many requests at the same moment."""
    together = threading.Barrier(open_requests, timeout=60)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer(self.path.partition("?")[0].split("/")[-1].split(","))
            together.wait()
            self.send_response(200)
            if packed:
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            with suppress(OSError):  # the client hangs up
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = MAX_OPEN_REQUESTS

    with serving(Server(("127.0.0.1", 0), Handler)) as address:
        yield f"http://{address}"


@pytest.mark.parametrize(
    ("plan", "answer", "size"),
    [
        ("free", ordinary, ANSWER_OF_A_TICKER),
        pytest.param(
            *("pro", a_month, ANSWER_WITHOUT_BARS + 20 * 33 * 20 * BAR_BYTES),
            marks=pytest.mark.services,  # a minute of one core
        ),
    ],
)
def test_hostile_bodies_at_once(plan: str, answer: Answer, size: int) -> None:
    at_once = min(MAX_OPEN_REQUESTS, MAX_OPEN_BYTES // size)
    bodies = hostile(size)
    with ExitStack() as servers:
        addresses = [servers.enter_context(answering(answer, at_once))]
        for case, body in bodies.items():
            server = answering(always(body), at_once, packed=case == "packed")
            addresses.append(servers.enter_context(server))
        command = [sys.executable, "-m", __name__, plan]
        command += [str(at_once), *addresses]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    ordinary, *peaks = map(int, done.stdout.splitlines())
    more = {case: peak - ordinary for case, peak in zip(bodies, peaks, strict=True)}
    sys.stdout.write(f"MiB at {at_once} answers: {ordinary}, and more of {more}\n")
    assert max(more.values()) < MOST_MIB, more


def fetch(plan: str, requests: int, address: str) -> None:
    """Asks once for everything; what fails is of no interest here."""
    letters = islice(product(ascii_uppercase, repeat=4), requests * PLANS[plan].tickers_per_request)
    tickers = ["".join(four) + "3" for four in letters]
    settings = {"plan": plan, "min_interval_seconds": 0, "timeout_seconds": 120}
    with brapi_with(base_url=address, token=TOKEN, **settings).client() as asking:
        if plan == "free":
            asking.quotes(tickers, WINDOW)
        else:
            asking.history(tickers, MONTH, WINDOW.day, 30)


if __name__ == "__main__":
    client.MAX_ATTEMPTS, client.FAILURES_OF_A_BREAKDOWN = 1, 1_000
    for each in sys.argv[3:]:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        fetch(sys.argv[1], int(sys.argv[2]), each)
        peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        assert peak
        sys.stdout.write(f"{int(peak[1]) // 1024}\n")
