"""Sends requests at Brapi's rate, each with a time limit.

One thread decides when a request is sent, and when it is given up. Each request has a thread of its
own, because the time-out of a socket does not limit a whole request: it starts again with every
byte, and the look-up of a host name has none. A request that is given up leaves its thread running.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from market_data_pipeline.brapi.connection import Connection, Question, Reply
from market_data_pipeline.brapi.errors import TemporaryError
from market_data_pipeline.settings import Settings

MAX_OPEN_REQUESTS = 24
# Of all answers under way at the same time.
MAX_OPEN_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Request:
    """A batch of tickers to ask for, for the `attempt`-th time, not before `due` (monotonic)."""

    batch: tuple[str, ...]
    attempt: int = 1
    due: float = 0.0


Outcome = Reply | BaseException


class RequestQueue:
    """The requests of a client, one after the other; the time of the step counts from now."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._interval = settings.brapi_min_interval_seconds
        self._request_timeout = settings.brapi_timeout_seconds
        self.deadline = time.monotonic() + settings.brapi_step_timeout_seconds
        """When everything ends, by `time.monotonic()`."""
        self._next_start = 0.0
        self._done: queue.SimpleQueue[tuple[Request, Outcome]] = queue.SimpleQueue()
        self.requests = 0
        """How many have been sent."""

    def outcomes(
        self, question: Question, waiting: list[Request]
    ) -> Iterator[tuple[Request, Outcome]]:
        """Sends the waiting requests one after the other, and yields each outcome as it comes.

        Ends at the deadline, or earlier if nothing is under way and nothing may start before it.
        Requests that the caller adds to `waiting` meanwhile are sent, too.
        """
        under_way: dict[Request, float] = {}  # with the instant when each is given up
        most = max(1, min(MAX_OPEN_REQUESTS, MAX_OPEN_BYTES // question.largest))
        while waiting or under_way:
            now = time.monotonic()
            due = min((each.due for each in waiting), default=math.inf)
            start = max(due, self._next_start) if len(under_way) < most else math.inf
            if now >= self.deadline or (start >= self.deadline and not under_way):
                return
            if now >= start:
                request = min(waiting, key=lambda each: each.due)
                waiting.remove(request)
                under_way[request] = now + self._request_timeout
                self._send(question, request)
                continue
            given_up = min(under_way.values(), default=math.inf)
            wait = max(0, min(start, given_up, self.deadline) - now)
            try:
                request, outcome = self._done.get(timeout=wait)
            except queue.Empty:
                if time.monotonic() < given_up:
                    continue
                seconds = self._request_timeout
                request = next(iter(under_way))
                outcome = TemporaryError(f"no answer within {seconds:.3g} s")
            if under_way.pop(request, None):  # not one that was given up before
                yield request, outcome

    def hold(self, seconds: float) -> bool:
        """Sends nothing for that many seconds; returns whether there is time left after them."""
        self._next_start = max(self._next_start, time.monotonic() + seconds)
        return self._next_start < self.deadline

    def _send(self, question: Question, request: Request) -> None:
        def get() -> None:
            try:
                reply = self._connection.get(question, request.batch, self._request_timeout)
                self._done.put((request, reply))
            except BaseException as error:
                self._done.put((request, error))

        self.requests += 1
        threading.Thread(target=get, name="brapi-request", daemon=True).start()
        self._next_start = time.monotonic() + self._interval
