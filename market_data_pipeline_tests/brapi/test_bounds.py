"""The bounds that the client keeps, whatever the other side does: time, rate, plan, secret."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from brapi_sandbox.faults import Fault
from brapi_sandbox.sandbox import Sandbox, serve

from market_data_pipeline.brapi import client as client_module
from market_data_pipeline.brapi import request_queue
from market_data_pipeline.brapi.client import ANSWER_OF_A_TICKER, Fetch
from market_data_pipeline.brapi.errors import RunError
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

WINDOW = TradingWindows().last_ended(datetime.now(UTC)) or pytest.fail("no window has ended")
assert WINDOW is not None


@contextmanager
def answering(answer: bytes, *, pause: float = 0.0) -> Iterator[str]:
    """A server that sends these bytes to everybody, one at a time if there is a pause between."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def send(connection: socket.socket) -> None:
            with connection:
                connection.recv(65536)
                parts = [answer] if not pause else [answer[i : i + 1] for i in range(len(answer))]
                for part in parts:
                    try:
                        connection.sendall(part)
                    except OSError:
                        return
                    if over.wait(pause):
                        return

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=send, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


def fetch(base_url: str, tickers: list[str], **settings: Any) -> Fetch[Any]:
    settings = {"token": TOKEN, "min_interval_seconds": 0.001, **settings}
    with brapi_with(base_url=base_url, **settings).client() as client:
        return client.quotes(tickers, WINDOW)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(burst=1_000, token=TOKEN) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_BACKOFF_SECONDS", 0.01)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each request was started, by `time.monotonic()`."""
    starts: list[float] = []

    class Thread(threading.Thread):
        def start(self) -> None:
            starts.append(time.monotonic())
            super().start()

    monkeypatch.setattr(request_queue, "threading", SimpleNamespace(Thread=Thread))
    return starts


def gaps(starts: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(starts)]


def test_headers_that_drip_end_with_the_time_of_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "MAX_ATTEMPTS", 1)
    headers = b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(1_000))

    with answering(headers, pause=0.1) as url:
        outcome = fetch(url, ["ABEV3"], timeout_seconds=0.5)

    assert outcome.failures == {"ABEV3": "no answer within 0.5 s"}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nnot gzip",
        b"HTTP/1.1 301 Moved\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 No\r\nRetry-After: -1\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx-ratelimit-remaining: %s\r\n\r\n{}" % (b"9" * 5_000),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
)
def test_no_answer_raises_anything_of_the_library(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_ATTEMPTS", 2)
    with answering(answer) as url:
        outcome = fetch(url, ["ABEV3"])

    assert list(outcome.failures) == ["ABEV3"]


@pytest.mark.parametrize(
    ("packing", "pack"),
    [(b"", bytes), (b"identity", bytes), (b"GZIP", gzip.compress), (b"x-gzip", gzip.compress)],
)
def test_a_packing_is_read_by_any_of_its_names(
    packing: bytes, pack: Callable[[bytes], bytes]
) -> None:
    now = datetime.now(UTC).isoformat()
    quote = {"symbol": "ABEV3", "regularMarketPrice": 12.5, "regularMarketTime": now}
    body = pack(json.dumps({"results": [quote]}).encode())
    with answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\n\r\n%b" % (packing, body)) as url:
        outcome = fetch(url, ["ABEV3"])

    assert outcome.failures == {}
    assert outcome.answers["ABEV3"].price == 12.5


def test_what_follows_a_packed_body_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_ATTEMPTS", 1)
    body = gzip.compress(b'{"results": []}') + bytes(ANSWER_OF_A_TICKER + 1)
    with answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + body) as url:
        outcome = fetch(url, ["ABEV3"])

    assert outcome.failures == {"ABEV3": "the answer is larger than anything that was asked for"}


@pytest.mark.parametrize("odd", [{}, {"status": 503, "body": "<html>"}], ids=["answer", "page"])
def test_one_odd_rest_is_not_that_of_the_quota(
    odd: dict[str, Any], pipeline: Pipeline, watchlist: SetWatchlist
) -> None:
    watchlist(TICKERS)
    spent = {"x-ratelimit-limit": "15000", "x-ratelimit-remaining": "0"}
    pipeline.sandbox.faults = [Fault(ticker=TICKERS[1], headers=spent, **odd)]

    told = metadata(pipeline.run(LIVE_ON_TUESDAY, select="quotes"), "quotes")

    assert told["quota_left"] > 14_000


def test_the_step_ends_in_time_with_what_it_has(
    pipeline: Pipeline, watchlist: SetWatchlist
) -> None:
    watchlist(TICKERS)
    pipeline.brapi = {"step_timeout_seconds": 3.0, "timeout_seconds": 60.0}
    pipeline.sandbox.faults = [Fault(ticker=ticker, delay=60) for ticker in TICKERS[2:]]
    started = time.monotonic()

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert result.success
    assert time.monotonic() - started < 30  # far less than a request may take
    assert metadata(result, "quotes")["failed"] == [
        {"ticker": ticker, "reason": "no answer within the time of the step"}
        for ticker in TICKERS[2:]
    ]


def test_no_ticker_at_all_is_a_failure(pipeline: Pipeline, watchlist: SetWatchlist) -> None:
    watchlist(TICKERS)
    pipeline.sandbox.faults = [Fault(status=404)]

    result = pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    assert failure_of(result) == (
        "Brapi answered for 0 of 4 tickers, most often because: unknown ticker (404). Nothing was "
        "stored; materialize the window again."
    )


def test_every_request_starts_a_whole_interval_after_the_one_before(
    sandbox: Sandbox, starts: list[float]
) -> None:
    outcome = fetch(sandbox.url, TICKERS, min_interval_seconds=0.1)

    assert list(outcome.answers) == TICKERS
    assert len(sandbox.requests) == len(starts) == len(TICKERS)
    assert min(gaps(starts)) >= 0.1


def test_a_repeated_request_waits_for_its_turn_too(
    sandbox: Sandbox, starts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "FIRST_BACKOFF_SECONDS", 0)
    sandbox.faults = [Fault(ticker=ticker, status=500, numbers=[1]) for ticker in TICKERS]

    outcome = fetch(sandbox.url, TICKERS, min_interval_seconds=0.1)

    assert list(outcome.answers) == TICKERS
    assert len(sandbox.requests) == len(starts) == 2 * len(TICKERS)
    assert min(gaps(starts)) >= 0.1


def test_retry_after_holds_every_request_back(sandbox: Sandbox) -> None:
    sandbox.faults = [Fault(status=429, headers={"Retry-After": "1"}, numbers=[1])]

    outcome = fetch(sandbox.url, TICKERS, min_interval_seconds=0.2)

    assert list(outcome.answers) == TICKERS
    starts = [seen.at for seen in sandbox.requests]
    assert max(later - earlier for earlier, later in pairwise(starts)) > 0.9


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

    outcome = fetch(sandbox.url, TICKERS, min_interval_seconds=0.3)

    assert len(outcome.answers) == outcome.requests - 1 >= 2
    assert outcome.failures
    assert all("Brapi asks to wait 3600 s" in reason for reason in outcome.failures.values())


def test_a_plan_that_was_guessed_too_large_costs_one_request(sandbox: Sandbox) -> None:
    with pytest.raises(RunError, match=r"fewer than 2 tickers.*or BRAPI_TICKERS_PER_REQUEST"):
        fetch(sandbox.url, TICKERS, plan="pro", tickers_per_request=2, min_interval_seconds=30)

    assert len(sandbox.requests) == 1


def test_history_that_the_plan_of_the_token_has_not_costs_one_request(
    pipeline: Pipeline, watchlist: SetWatchlist
) -> None:
    watchlist(TICKERS)
    pipeline.brapi = {"plan": "pro", "tickers_per_request": 1, "min_interval_seconds": 1}

    result = pipeline.run("2026-11-16T17:30-0300", select="quotes")

    assert failure_of(result).endswith("Set BRAPI_PLAN to the plan you have.")
    assert len(pipeline.sandbox.requests) == 1


def test_what_a_split_batch_has_is_kept_when_the_time_is_over(sandbox: Sandbox) -> None:
    sandbox.plan = "pro"
    sandbox.faults = [
        Fault(ticker=TICKERS[-1], status=404, numbers=[1, 2]),
        Fault(ticker=TICKERS[-1], delay=60, numbers=[3]),
    ]

    outcome = fetch(sandbox.url, TICKERS, plan="pro", step_timeout_seconds=3.0)

    assert list(outcome.answers) == TICKERS[:-1]
    assert outcome.failures == {TICKERS[-1]: "no answer within the time of the step"}


def test_settings_override_the_plan(sandbox: Sandbox) -> None:
    sandbox.plan = "pro"

    outcome = fetch(sandbox.url, TICKERS, plan="free", tickers_per_request=3)

    assert list(outcome.answers) == TICKERS
    assert outcome.requests == 2


def test_what_the_plan_forbids_is_not_asked(pipeline: Pipeline) -> None:
    result = pipeline.run("2026-06-16T17:30-0300", select="quotes")

    assert "The plan 'free' reaches back 3mo, to 2026-08-17; 2026-06-16 is too far back." in (
        failure_of(result)
    )
    assert pipeline.sandbox.requests == []


def test_a_redirect_is_not_followed(sandbox: Sandbox) -> None:
    with serve(token=TOKEN) as elsewhere:
        location = {"Location": f"{elsewhere.url}/api/quote/ABEV3"}
        sandbox.faults = [Fault(status=301, headers=location)]

        assert list(fetch(sandbox.url, ["ABEV3"]).failures) == ["ABEV3"]

        assert len(sandbox.requests) == 1
        assert elsewhere.requests == []


def test_a_netrc_does_not_replace_the_token(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))

    assert list(fetch(sandbox.url, ["ABEV3"]).answers) == ["ABEV3"]


def test_a_proxy_is_used(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")

        outcome = fetch("http://brapi.test", ["ABEV3"])

    assert "Brapi answered 407 with a page that is not from its API" in outcome.failures["ABEV3"]


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
    for said in slashes + addresses + json_and_html:
        body = f'{{"error": true, "message": "{form.format(said)}"}}'
        for charset in ("utf-8", "utf-16", "utf-32-be"):
            sandbox.faults = [Fault(status=400, body=body, charset=charset)]

            reason = fetch(sandbox.url, ["ABEV3"], token=token).failures["ABEV3"]

            assert form.format("***") in reason


def test_progress_counts_every_ticker(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SECONDS_BETWEEN_PROGRESS_LINES", 0)
    sandbox.faults = [Fault(ticker="WEGE3", status=404)]

    with caplog.at_level("INFO"):
        fetch(sandbox.url, list(TICKERS))

    assert [line.partition(" tickers")[0] for line in caplog.messages] == [
        f"{done} of 4" for done in (1, 2, 3, 4)
    ]
    assert caplog.messages[-1] == "4 of 4 tickers done, 1 failed, about 0 s left"
