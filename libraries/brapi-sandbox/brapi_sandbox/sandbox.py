"""A server that answers like Brapi: its rules, its errors and, if asked, its faults.

It knows the instruments of `instruments.csv` and those that its market was given; any other ticker
is unknown to it, as it would be to Brapi. Prices are made up (see `market`), and every answer says
so in its headers `Server: brapi-sandbox/VERSION` and `Brapi-Sandbox: VERSION`.

Beside the API there are `POST /sandbox/faults` (a JSON list of faults, which replaces the faults
there are) and `GET /sandbox/requests` (the requests so far).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from brapi_sandbox.answers import history, quote, stamp
from brapi_sandbox.b3_files import b3_file
from brapi_sandbox.faults import MESSAGES, Answer, Connection, Delivery, Fault
from brapi_sandbox.market import SAO_PAULO, Market
from brapi_sandbox.rules import (
    FREE_TICKERS,
    PLANS,
    RENAMED,
    Plan,
    Refusal,
    refusal,
    requested_span,
)
from brapi_sandbox.version import SERVER, __version__

ROLLING = timedelta(days=30)


@dataclass(frozen=True)
class SeenRequest:
    """One request that reached the sandbox."""

    at: float
    """When it arrived, by `time.monotonic()`."""
    path: str
    query: Mapping[str, str]
    authorization: bool
    """Whether it had an `Authorization` header."""
    connection: int
    """The client's port: the same for requests over one connection."""


@dataclass
class Sandbox:
    """The settings and the state of one sandbox. All can be changed while it serves."""

    plan: str = "free"
    """`free`, `startup` or `pro`."""
    token: str | None = None
    """The one token that is accepted; None accepts any."""
    remaining: int | None = None
    """Requests that are left of the quota; by default all of the plan's."""
    usage_window: Literal["billing-cycle", "rolling-30d"] = "billing-cycle"
    """What the quota is counted over: a calendar month, or the last 30 days."""
    latency: float = 0
    """Seconds from a request to its answer."""
    burst: int = 3
    """How many requests at once the free plan takes: started within `burst_seconds`, unanswered."""
    burst_seconds: float = 0.25
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    """The present instant, with its time zone. A function that returns a constant stops time."""
    faults: Sequence[Fault] = ()
    """Applied in their order to every request for quotes."""
    quota_header: str = "x-ratelimit"
    """`x-ratelimit` or `ratelimit`: the beginning of the headers' names."""
    legacy: bool = False
    """Answer as the API once did: `regularMarketTime` in Unix seconds, volumes as floats, `took` as
    text, 417 for an unknown ticker and 402 for a spent quota."""
    market: Market = field(default_factory=Market)
    url: str = field(default="", init=False)
    """The address, such as `http://127.0.0.1:8790`, once it is served."""
    requests: list[SeenRequest] = field(default_factory=list, init=False)
    """The requests to the API so far."""
    _started: list[float] = field(default_factory=list, init=False)
    """When the requests that are being answered arrived."""

    def __post_init__(self) -> None:
        if self.remaining is None:
            self.remaining = PLANS[self.plan].quota

    @contextlib.contextmanager
    def answering(self, request: Request) -> Iterator[None]:
        """Keeps the record of requests, and of those under way."""
        arrived = time.monotonic()
        self.requests.append(
            SeenRequest(
                arrived,
                request.url.path,
                dict(request.query_params),
                "authorization" in request.headers,
                request.client.port if request.client else 0,
            )
        )
        self._started.append(arrived)
        try:
            yield
        finally:
            self._started.remove(arrived)

    def check_token(self, request: Request) -> None:
        """Raises the refusal of a missing or wrong token."""
        bearer = request.headers.get("authorization", "")
        token = bearer.removeprefix("Bearer ").strip() or request.query_params.get("token", "")
        if not token:
            message = "O seu token não foi informado. Obtenha um em brapi.dev/dashboard"
            raise refusal(401, message, "MISSING_TOKEN")
        if self.token not in (None, token):
            message = "O seu token é inválido, por favor, verifique o seu token em brapi.dev"
            raise refusal(401, message, "INVALID_TOKEN")

    def take_from_quota(self) -> None:
        """Counts one request, or raises the refusal of too many."""
        recent = [at for at in self._started if at > time.monotonic() - self.burst_seconds]
        if self.plan == "free" and len(recent) > self.burst:
            answer = refusal(429, "Muitas requisições simultâneas. Aguarde e tente novamente.")
            raise Refusal(429, answer.body, {"Retry-After": "1"})
        if not self.remaining:
            raise refusal(402 if self.legacy else 429, MESSAGES[402])
        self.remaining -= 1

    def quota_headers(self) -> dict[str, str]:
        """What every answer to a valid token says."""
        name = self.quota_header
        return {
            f"{name}-limit": str(PLANS[self.plan].quota),
            f"{name}-remaining": str(self.remaining),
        }

    def quotes(
        self,
        tickers: Sequence[str],
        query: Mapping[str, str],
        plan: Plan,
        interval: str | None = None,
    ) -> list[Any]:
        """The results for the tickers that are known; their bars are of `interval`, if it is given.

        Raises:
            Refusal: a parameter is wrong, there are too many tickers, or none is known.
        """
        if len(tickers) > plan.tickers_per_request:
            message = f"Seu plano permite até {plan.tickers_per_request} ativo(s) por requisição."
            raise refusal(400, message, "QUOTES_PER_REQUEST_EXCEEDED")
        now = self.now()
        as_of = datetime.fromtimestamp(
            now.timestamp() // (plan.refresh_minutes * 60) * (plan.refresh_minutes * 60), UTC
        )
        span = requested_span(query, plan, _day(now), self.market)
        results = []
        for asked in tickers:
            ticker, repeats = RENAMED.get(asked, (asked, False))
            if ticker not in self.market.instruments:
                continue
            result = quote(self.market, ticker, as_of)
            if self.legacy:
                traded_at = datetime.fromisoformat(result["regularMarketTime"])
                result["regularMarketTime"] = int(traded_at.timestamp())
                result["regularMarketVolume"] = float(result["regularMarketVolume"])
            if repeats:
                result["requestedSymbol"] = asked
            if span:
                used = interval or span.interval
                result |= {
                    "usedInterval": used,
                    "usedRange": span.used_range,
                    "historicalDataPrice": history(self.market, ticker, as_of, span.days, used),
                    "validRanges": plan.ranges,
                    "validIntervals": plan.intervals,
                }
            results.append(result)
        if not results:
            message = f"Não encontramos a ação {', '.join(tickers)}"
            raise refusal(417 if self.legacy else 404, message)
        return results


def create_app(sandbox: Sandbox) -> Starlette:
    """The API over the state of `sandbox`."""

    async def get_quote(request: Request) -> Response:
        started = time.monotonic()
        tickers = request.path_params["tickers"].upper().split(",")
        tickers = list(dict.fromkeys(ticker.strip() for ticker in tickers if ticker.strip()))
        with sandbox.answering(request):
            faults = [fault for fault in sandbox.faults if fault.concerns(tickers)]
            interval = next((fault.interval for fault in faults if fault.interval), None)
            answer = _quote_answer(sandbox, request, tickers, interval)
            for fault in faults:
                fault.spoil(answer)
            await asyncio.sleep(max(0.0, started + sandbox.latency - time.monotonic()))
        return Delivery(answer)

    async def get_usage(request: Request) -> Response:
        with sandbox.answering(request):
            try:
                sandbox.check_token(request)
                return JSONResponse(_usage(sandbox), headers=sandbox.quota_headers())
            except Refusal as refused:
                return JSONResponse(refused.body, refused.status, refused.headers)

    async def get_b3_file(request: Request) -> Response:
        name = request.path_params["name"]
        # A year takes seconds: the API goes on answering meanwhile.
        content = await asyncio.to_thread(
            b3_file, sandbox.market, name, sandbox.now(), sandbox.faults
        )
        if content is None:
            return Response("<html>404 - File or directory not found.</html>", 404)
        return Response(content, media_type="application/x-zip-compressed")

    async def post_faults(request: Request) -> Response:
        try:
            sandbox.faults = [Fault(**fault) for fault in await request.json()]
        except (TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 422)
        return Response(status_code=204)

    async def get_requests(request: Request) -> Response:
        return JSONResponse([dataclasses.asdict(seen) for seen in sandbox.requests])

    return Starlette(
        routes=[
            Route("/api/quote/{tickers}", get_quote),
            Route("/api/v2/user/usage", get_usage),
            Route("/InstDados/SerHist/{name}", get_b3_file),
            Route("/sandbox/faults", post_faults, methods=["POST"]),
            Route("/sandbox/requests", get_requests),
        ],
        exception_handlers={HTTPException: _no_such_route},
    )


async def _no_such_route(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = {"error": True, "message": f"Rota não encontrada: {error.detail}"}
    return JSONResponse(body, error.status_code)


def _quote_answer(
    sandbox: Sandbox, request: Request, tickers: list[str], interval: str | None
) -> Answer:
    """What the API would answer if nothing went wrong on the way."""
    started, headers = time.monotonic(), {}
    try:
        # Without a limit is what the largest plan comes nearest to.
        plan = dataclasses.replace(PLANS["pro"], tickers_per_request=len(FREE_TICKERS))
        if not FREE_TICKERS.issuperset(tickers):
            sandbox.check_token(request)
            try:
                sandbox.take_from_quota()
            finally:
                headers = sandbox.quota_headers()
            plan = PLANS[sandbox.plan]
        results = sandbox.quotes(tickers, request.query_params, plan, interval)
    except Refusal as refused:
        return Answer(refused.status, refused.body, {**headers, **refused.headers})
    return Answer(200, {"results": results, **_footer(sandbox, started)}, headers)


def _usage(sandbox: Sandbox) -> dict[str, Any]:
    started, plan = time.monotonic(), PLANS[sandbox.plan]
    left = sandbox.remaining or 0
    start, end = _usage_window(sandbox)
    usage = {
        "planName": plan.name,
        "planLimit": plan.quota,
        "currentUsage": plan.quota - left,
        "remainingUsage": left,
        "subscriptionPeriod": {"start": None, "end": None},
        "usageWindow": {"type": sandbox.usage_window, "start": stamp(start), "end": stamp(end)},
    }
    return {"usage": usage, **_footer(sandbox, started)}


def _usage_window(sandbox: Sandbox) -> tuple[datetime, datetime]:
    now = sandbox.now()
    if sandbox.usage_window == "rolling-30d":
        return now - ROLLING, now
    first = _day(now).replace(day=1)
    start = datetime(first.year, first.month, 1, tzinfo=UTC)
    return start, datetime(first.year + first.month // 12, first.month % 12 + 1, 1, tzinfo=UTC)


def _footer(sandbox: Sandbox, started: float) -> dict[str, Any]:
    took = round(1000 * max(sandbox.latency, time.monotonic() - started))
    return {"requestedAt": stamp(sandbox.now()), "took": f"{took}ms" if sandbox.legacy else took}


def _day(instant: datetime) -> date:
    return instant.astimezone(SAO_PAULO).date()


@contextlib.contextmanager
def serve(**settings: Any) -> Iterator[Sandbox]:
    """Serves a sandbox on a free port of the loopback, in a thread, until the context ends.

    Args:
        settings: the fields of `Sandbox`.

    Yields:
        The sandbox; its `url` is the address to give to a client.

    Example:
        ```python
        import requests
        from brapi_sandbox import Fault, serve

        with serve(plan="startup") as sandbox:
            sandbox.faults = [Fault(ticker="GGBR4", status=500)]
            headers = {"Authorization": "Bearer any"}
            answer = requests.get(f"{sandbox.url}/api/quote/GGBR4", headers=headers, timeout=5)
            assert answer.status_code == 500
        ```
    """
    sandbox = Sandbox(**settings)
    with listen(sandbox, port=0) as listener:
        server = make_server(sandbox)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield sandbox
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


def listen(sandbox: Sandbox, port: int) -> socket.socket:
    """Listens on a port of the loopback, 0 for a free one, and sets the sandbox's `url`.

    Raises:
        OSError: the port cannot be used.
    """
    listener = socket.create_server(("127.0.0.1", port))
    sandbox.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    return listener


def make_server(sandbox: Sandbox) -> uvicorn.Server:
    """The server of a sandbox, to be run on a socket that listens."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(sandbox),
            http=Connection,
            lifespan="off",
            log_level="critical",  # what goes wrong here is meant to
            server_header=False,
            headers=[("Server", SERVER), ("Brapi-Sandbox", __version__)],
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
    )
