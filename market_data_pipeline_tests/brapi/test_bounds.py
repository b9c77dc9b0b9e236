"""The bounds that the client keeps, whatever the other side does: time, rate, plan, secret."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY
from urllib.parse import quote

import pytest
from brapi_sandbox.faults import Fault
from brapi_sandbox.sandbox import Sandbox, serve

from market_data_pipeline.brapi import client as client_module
from market_data_pipeline.brapi import request_queue
from market_data_pipeline.brapi.client import ANSWER_OF_A_TICKER
from market_data_pipeline.brapi.errors import RunError
from market_data_pipeline.market import clock
from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.market.windows import TradingWindows
from market_data_pipeline_tests.brapi.table import TICKERS
from market_data_pipeline_tests.conftest import (
    LIVE_ON_TUESDAY,
    TOKEN,
    Pipeline,
    SetWatchlist,
    brapi_with,
)
from market_data_pipeline_tests.observed import failure_of, metadata
from market_data_pipeline_tests.serving import serving

WINDOW = TradingWindows().last_ended(datetime.now(UTC)) or pytest.fail("no window has ended")
assert WINDOW is not None


@contextmanager
def answering(answer: bytes, *, pause: float = 0.0) -> Iterator[str]:
    """A server that sends these bytes to everybody, one at a time if there is a pause between."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            with suppress(OSError):
                for start in range(0, len(answer), step := 1 if pause else 2**20):
                    self.request.sendall(answer[start : start + step])
                    time.sleep(pause)

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with serving(Server(("127.0.0.1", 0), Handler)) as address:
        yield f"http://{address}"


def fetch(base_url: str, tickers: list[str], **settings: Any) -> dict[str, Any]:
    settings = {"token": TOKEN, "min_interval_seconds": 0.001, **settings}
    with brapi_with(base_url=base_url, **settings).client() as client:
        return client.quotes(tickers, WINDOW)


def answered(outcome: dict[str, Any]) -> list[str]:
    return [ticker for ticker, each in outcome.items() if not isinstance(each, str)]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(burst=1_000, token=TOKEN) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_BACKOFF_SECONDS", 0.01)


def gaps(starts: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(starts)]


DRIPPING = b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(1_000))
PACKED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (DRIPPING, "no answer within 0.3 s"),
        (
            PACKED + gzip.compress(b'{"results": []}') + bytes(ANSWER_OF_A_TICKER + 1),
            "the answer is larger than this request allows",
        ),
        (PACKED + b"not gzip", ANY),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", ANY),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{", ANY),
        (b"HTTP/1.1 301 Moved\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n", ANY),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n", ANY),
        (b"HTTP/1.1 429 No\r\nRetry-After: -1\r\nContent-Length: 2\r\n\r\n{}", ANY),
        (b"HTTP/1.1 200 OK\r\nx-ratelimit-remaining: %s\r\n\r\n{}" % (b"9" * 5_000), ANY),
        (b"SSH-2.0-OpenSSH_9.6\r\n", ANY),
        (b"", ANY),
    ],
)
def test_what_is_no_answer_is_a_failure_and_raises_nothing(
    answer: bytes, reason: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_ATTEMPTS", 2)
    drips = answer is DRIPPING
    with answering(answer, pause=0.1 * drips) as url:
        outcome = fetch(url, ["ABEV3"], timeout_seconds=0.3 if drips else 10)

    assert outcome == {"ABEV3": reason}


@pytest.mark.parametrize("packing", ["identity", "x-gzip", "X-gzip"])
def test_a_packing_is_read_by_any_of_its_names(sandbox: Sandbox, packing: str) -> None:
    sandbox.faults = [Fault(encoding=packing)]

    assert answered(fetch(sandbox.url, TICKERS)) == TICKERS


@pytest.mark.parametrize("odd", [{}, {"status": 503, "body": "<html>"}], ids=["answer", "page"])
def test_one_odd_rest_is_not_that_of_the_quota(
    odd: dict[str, Any], pipeline: Pipeline, watchlist: SetWatchlist
) -> None:
    watchlist(TICKERS)
    spent = {"x-ratelimit-limit": "15000", "x-ratelimit-remaining": "0"}
    pipeline.sandbox.faults = [Fault(ticker=TICKERS[1], headers=spent, **odd)]

    told = metadata(pipeline.run(LIVE_ON_TUESDAY, select="quotes"), "quotes")

    assert told["quota_left"] > 14_000


@pytest.mark.parametrize(
    ("plan", "status", "quota"), [("pro", 503, "500,000"), ("free", 404, "15,000")]
)
def test_what_one_ticker_is_answered_with_is_not_the_quota(
    plan: str, status: int, quota: str, make_pipeline: Callable[..., Any]
) -> None:
    few = {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "10"}
    with make_pipeline(plan=plan) as pipeline:
        pipeline.sandbox.faults = [Fault(ticker="HGLG11", status=status, headers=few)]

        told = metadata(pipeline.run(LIVE_ON_TUESDAY, select="quotes"), "quotes")

        assert told["quota_left"] > 14_000
        assert f" of {quota} until " in told["quota"]


def test_the_step_ends_in_time_with_what_it_has_also_of_a_split_batch(
    pro: Pipeline, watchlist: SetWatchlist
) -> None:
    watchlist(TICKERS)
    last = TICKERS[-1]
    pro.brapi = {"step_timeout_seconds": 3.0, "timeout_seconds": 60.0}
    pro.sandbox.faults = [
        Fault(ticker=last, status=404, numbers=[1, 2]),
        Fault(ticker=last, delay=60, numbers=[3]),
    ]
    started = time.monotonic()

    result = pro.run(LIVE_ON_TUESDAY, select="quotes")

    assert result.success
    assert time.monotonic() - started < 30  # far less than a request may take
    told = metadata(result, "quotes")
    assert told["quotes"] == len(TICKERS) - 1
    why = "no answer within the time of the step"
    assert told["failed"] == [{"ticker": last, "reason": why}]


def test_every_request_starts_a_whole_interval_after_the_one_before_also_a_repeated_one(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[float] = []

    class Thread(threading.Thread):
        def start(self) -> None:
            starts.append(time.monotonic())
            super().start()

    monkeypatch.setattr(request_queue, "threading", SimpleNamespace(Thread=Thread))
    monkeypatch.setattr(client_module, "FIRST_BACKOFF_SECONDS", 0)
    sandbox.faults = [Fault(ticker=ticker, status=500, numbers=[1]) for ticker in TICKERS]

    outcome = fetch(sandbox.url, TICKERS, min_interval_seconds=0.1)

    assert answered(outcome) == TICKERS
    assert len(sandbox.requests) == len(starts) == 2 * len(TICKERS)
    assert min(gaps(starts)) >= 0.1


def test_the_first_request_of_a_run_keeps_the_interval_too(
    pipeline: Pipeline, watchlist: SetWatchlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may have sent its last one just before."""
    watchlist(["BBAS3"])
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    slept: list[float] = []
    monkeypatch.setattr(clock, "sleep", slept.append)
    pipeline.brapi = {"min_interval_seconds": 3_600}

    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    assert 3_000 < sum(slept) <= 3_600  # less by what the run does meanwhile


def test_retry_after_holds_every_request_back(sandbox: Sandbox) -> None:
    sandbox.faults = [Fault(status=429, headers={"Retry-After": "1"}, numbers=[1])]

    outcome = fetch(sandbox.url, TICKERS, min_interval_seconds=0.2)

    assert answered(outcome) == TICKERS
    assert max(gaps([seen.at for seen in sandbox.requests])) > 0.9


def test_backoff_doubles_and_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_BACKOFF_SECONDS", 1.0)
    for attempt, longest in ((1, 1), (2, 2), (3, 4)):
        waits = [client_module._backoff(attempt) for _ in range(100)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert len(set(waits)) > 90


def test_a_refused_token_ends_the_run_without_a_further_request(sandbox: Sandbox) -> None:
    sandbox.faults = [Fault(status=401, code="INVALID_TOKEN")]

    with pytest.raises(RunError, match="Set BRAPI_TOKEN to a valid one"):
        fetch(sandbox.url, TICKERS, min_interval_seconds=30)

    assert len(sandbox.requests) == 1


def test_what_is_under_way_when_brapi_asks_to_wait_is_not_lost(sandbox: Sandbox) -> None:
    slow = [Fault(ticker=ticker, delay=1.5) for ticker in TICKERS]
    refused = Fault(numbers=[3], status=429, headers={"Retry-After": "3600"}, delay=-1.5)
    sandbox.faults = [*slow, refused]

    with brapi_with(base_url=sandbox.url, token=TOKEN, min_interval_seconds=0.3).client() as asking:
        outcome, asked = asking.quotes(TICKERS, WINDOW), asking.requests
        later = asking.quotes(TICKERS, WINDOW)  # as for the past windows of a range

    assert len(answered(outcome)) == asked - 1 == len(sandbox.requests) - 1 >= 2
    assert answered(later) == []
    reasons = [outcome[ticker] for ticker in TICKERS if ticker not in answered(outcome)]
    assert all("Brapi asks to wait 3600 s" in str(each) for each in [*reasons, *later.values()])


def test_settings_override_the_plan(sandbox: Sandbox) -> None:
    sandbox.plan = "pro"

    outcome = fetch(sandbox.url, TICKERS, plan="free", tickers_per_request=3)

    assert answered(outcome) == TICKERS
    assert len(sandbox.requests) == 2


def test_what_the_plan_forbids_is_not_asked(pipeline: Pipeline) -> None:
    result = pipeline.run("2026-06-16T17:30-0300", select="quotes")

    assert "The plan 'free' reaches back 3mo, to 2026-08-17; 2026-06-16 is too far back." in (
        failure_of(result)
    )
    assert pipeline.sandbox.requests == []


def test_a_netrc_does_not_replace_the_token(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))

    assert answered(fetch(sandbox.url, ["ABEV3"])) == ["ABEV3"]


def test_a_proxy_is_used(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")

        outcome = fetch("http://brapi.test", ["ABEV3"])

    assert "Brapi answered 407 with a page that is not from its API" in outcome["ABEV3"]


@pytest.mark.parametrize("token", ["", "two words", "new\nline", "ação", 'quo"te', "a,b"])
def test_a_token_that_cannot_be_one_is_said_at_once(token: str) -> None:
    with pytest.raises(RunError, match="BRAPI_TOKEN") as raised:
        brapi_with(token=token).client()

    assert not token or token not in str(raised.value)


def escaped(token: str, form: str) -> str:
    return "".join(form.format(ord(char)) for char in token)


@pytest.mark.parametrize("token", ["abcd/efgh+ijkl==", "plain-token_1.2~3", "long-Token" * 150])
@pytest.mark.parametrize("form", ["{}", "{} is refused", "GET /api?token={}"])
def test_a_body_that_repeats_the_token_is_not_repeated(
    token: str, form: str, sandbox: Sandbox
) -> None:
    sandbox.token = token
    slashes = [token, token.replace("/", r"\/"), token.replace("/", r"\\/")]
    addresses = [quote(token, ""), quote(quote(token, ""), ""), escaped(token, "%{:02X}")]
    json_and_html = [escaped(token, each) for each in (r"\u{:04X}", r"\\u{:04x}", "&#{};")]
    cases = [*product(slashes + addresses + json_and_html, ("utf-8", "utf-16", "utf-32-be"))]
    faults = {
        ticker: Fault(
            ticker=ticker,
            status=400,
            body=f'{{"error": true, "message": "{form.format(said)}"}}',
            charset=charset,
        )
        for ticker, (said, charset) in zip(load_watchlist().tickers, cases, strict=False)
    }
    sandbox.faults = [*faults.values()]

    failures = fetch(sandbox.url, [*faults], token=token)

    assert len(failures) == len(cases)
    assert [reason for reason in failures.values() if form.format("***") not in reason] == []


def test_progress_counts_every_ticker(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SECONDS_BETWEEN_PROGRESS_LINES", 0)
    sandbox.faults = [Fault(ticker="WEGE3", status=404)]

    with caplog.at_level("INFO"):
        fetch(sandbox.url, TICKERS)

    assert [line.partition(" tickers")[0] for line in caplog.messages] == [
        f"{done} of 4" for done in (1, 2, 3, 4)
    ]
    assert caplog.messages[-1] == "4 of 4 tickers done, 1 failed, about 0 s left"
