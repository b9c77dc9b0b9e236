"""How the sandbox misbehaves: what a fault is, and the answer that it spoils."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

MESSAGES = {
    400: "Parâmetros inválidos.",
    401: "Seu token é inválido, por favor, verifique seu token em brapi.dev/dashboard",
    402: "Você atingiu o limite de requisições do seu plano. Faça um upgrade para continuar.",
    403: "Este recurso não está disponível no seu plano.",
    404: "Não encontramos a ação solicitada.",
    417: "Não encontramos a ação solicitada.",
    429: "Muitas requisições. Tente novamente mais tarde.",
    500: "Erro interno do servidor.",
}


@dataclass
class Answer:
    """An answer on its way: its body is JSON, or text that is sent as it is."""

    status: int
    body: Mapping[str, Any] | str
    headers: dict[str, str] = field(default_factory=dict)
    encoding: str = ""
    charset: str = "utf-8"
    delay: float = 0
    drip: float = 0
    cut: bool = False
    reset: bool = False


@dataclass
class Fault:
    """One way to go wrong, for some of the requests for quotes. The parts can be combined.

    `POST /sandbox/faults` takes a JSON list of objects with the same fields.
    """

    ticker: str | None = None
    """Concerns the requests that ask for this ticker; by default every request."""
    numbers: Sequence[int] | None = None
    """Which of the requests concerned fail (1 is the first); by default all do."""
    status: int | None = None
    """Answer this status, with `code`, `headers` and `body` or a body that is usual for it."""
    code: str | None = None
    """The `code` in the body of that status."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Add these headers."""
    body: Mapping[str, Any] | str | None = None
    """Answer this: a mapping as JSON, a text as it is (HTML, broken JSON)."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Overwrite these fields of the results (of `ticker`, or all)."""
    without: Sequence[str] = ()
    """Leave these fields out."""
    bars: Mapping[str, Any] = field(default_factory=dict)
    """Overwrite these fields of every bar of the price history."""
    interval: str | None = None
    """Answer with bars of this interval, and say so in `usedInterval`."""
    drop: bool = False
    """Leave the result out."""
    reverse: bool = False
    """Answer the results in reverse order."""
    encoding: str = ""
    """The `Content-Encoding`: the body is packed for each `gzip` in it."""
    charset: str = ""
    """Send the body in these characters instead of UTF-8, without saying so."""
    delay: float = 0
    """Wait this many seconds before answering: a time-out, for a client with less patience."""
    drip: float = 0
    """Send one byte every so many seconds."""
    cut: bool = False
    """Close the connection in the middle of the body."""
    reset: bool = False
    """Reset the connection instead of answering."""
    _seen: int = field(default=0, init=False, repr=False)

    def concerns(self, tickers: Iterable[str]) -> bool:
        """Whether a request for `tickers` fails. Counts the requests: to be asked once for each."""
        if self.ticker is not None and self.ticker not in tickers:
            return False
        self._seen += 1
        return self.numbers is None or self._seen in self.numbers

    def spoil(self, answer: Answer) -> None:
        """Does to the answer what this fault says."""
        if isinstance(answer.body, Mapping) and "results" in answer.body:
            answer.body = {**answer.body, "results": self._spoiled(answer.body["results"])}
        if self.status is not None:
            answer.status = self.status
            message = MESSAGES.get(self.status, MESSAGES[500])
            error = {"error": True, "message": message}
            answer.body = error | {"code": self.code} if self.code else error
        if self.body is not None:
            answer.body = self.body
        answer.headers |= self.headers
        answer.encoding = self.encoding or answer.encoding
        answer.charset = self.charset or answer.charset
        answer.delay += self.delay
        answer.drip = max(answer.drip, self.drip)
        answer.cut |= self.cut
        answer.reset |= self.reset

    def _spoiled(self, results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        kept: list[Mapping[str, Any]] = []
        for result in results:
            hit = self.ticker in (None, result["symbol"], result.get("requestedSymbol"))
            if hit and self.drop:
                continue
            if hit:
                changed = {**result, **self.fields}
                if self.bars and "historicalDataPrice" in changed:
                    changed["historicalDataPrice"] = [
                        {**bar, **self.bars} for bar in changed["historicalDataPrice"]
                    ]
                result = {key: changed[key] for key in changed if key not in self.without}
            kept.append(result)
        return kept[::-1] if self.reverse else kept


class Connection(H11Protocol):
    """uvicorn's connection, with its transport in reach: a reset is no part of HTTP."""

    transports: ClassVar[dict[Any, asyncio.Transport]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transports[self.client] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transports.pop(self.client, None)
        super().connection_lost(exc)


class Delivery(Response):
    """Sends an answer, as badly as it says."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        is_text = isinstance(answer.body, str)
        content = answer.body if is_text else json.dumps(answer.body, ensure_ascii=False)
        html = is_text and str(content).lstrip().startswith("<")
        media_type = "text/html" if html else "application/json; charset=utf-8"
        # There is one `Server` header, and it tells that the prices are made up.
        headers = {n: v for n, v in answer.headers.items() if n.lower() != "server"}
        packed = str(content).encode(answer.charset)
        if answer.encoding:
            headers["Content-Encoding"] = answer.encoding
            for _ in range(answer.encoding.count("gzip")):
                packed = gzip.compress(packed)
        super().__init__(packed, answer.status, headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(self.answer.delay)
        if self.answer.reset:
            await _reset(Connection.transports[tuple(scope["client"])])
            return
        start = {"type": "http.response.start", "status": self.status_code}
        await send(start | {"headers": self.raw_headers})
        content = bytes(self.body)
        if self.answer.cut:
            # Returning before the body is complete makes uvicorn close the connection.
            await send(_part(content[: len(content) // 2], more=True))
            return
        if self.answer.drip:
            for byte in content:
                await send(_part(bytes([byte]), more=True))
                await asyncio.sleep(self.answer.drip)
            content = b""
        await send(_part(content, more=False))


def _part(content: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def _reset(transport: asyncio.Transport) -> None:
    """Closes the connection with RST: what is left to send is dropped."""
    linger_for_no_time = struct.pack("ii", 1, 0)
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time)
    transport.abort()
    while not transport.is_closing() or transport in Connection.transports.values():
        await asyncio.sleep(0)
