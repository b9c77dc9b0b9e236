"""Sends requests at Brapi's rate, and bounds each of them in time.

One thread decides everything. A request waits for its answer in a thread of its own, because no
time-out of a socket bounds a whole request: it starts anew with every byte, and looking up a name
has none. A request that hangs is given up when its time is over, and its thread is left behind.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from market_data_pipeline.brapi.answers import to_milliseconds
from market_data_pipeline.brapi.connection import Connection, Reply
from market_data_pipeline.brapi.errors import TemporaryError
from market_data_pipeline.market import clock

MAX_OPEN_REQUESTS = 24


@dataclass(frozen=True)
class Pending:
    """A request that is to be sent: a batch of tickers, for the `attempt`-th time, not before
    `due` (by `time.monotonic()`)."""

    batch: tuple[str, ...]
    attempt: int = 1
    due: float = 0.0


@dataclass(frozen=True, eq=False)
class Sent:
    """A request under way."""

    pending: Pending
    asked_at: datetime
    """When it was sent; aware, UTC, to the millisecond."""
    until: float
    """When it is given up, by `time.monotonic()`."""


Outcome = Reply | BaseException


class RequestQueue:
    """The requests of a client, one after the other.

    Args:
        connection: the way to Brapi.
        interval: seconds between the starts of two requests, at the least.
        request_timeout: seconds for one request, from connecting to the last byte.
        deadline: when everything ends, by `time.monotonic()`.
    """

    def __init__(
        self, connection: Connection, interval: float, request_timeout: float, deadline: float
    ) -> None:
        self._connection = connection
        self._interval = interval
        self._request_timeout = request_timeout
        self.deadline = deadline
        self._next_start = 0.0
        self.requests = 0
        """How many have been sent."""

    def outcomes(
        self, waiting: list[Pending], parameters: Mapping[str, str], path: str = "/api/quote/"
    ) -> Iterator[tuple[Sent, Outcome]]:
        """Sends what waits, in turn, and says what became of it, as it comes.

        Ends at the deadline, or before when nothing is under way or may start by then. What the
        caller adds to `waiting` meanwhile is sent too.
        """
        done: queue.SimpleQueue[tuple[Sent, Outcome]] = queue.SimpleQueue()
        under_way: set[Sent] = set()
        while waiting or under_way:
            now = time.monotonic()
            start = self._next(waiting) if len(under_way) < MAX_OPEN_REQUESTS else math.inf
            if now >= self.deadline or (start >= self.deadline and not under_way):
                return
            if now >= start:
                under_way.add(self._send(_first(waiting), path, parameters, done))
                continue
            given_up = min((each.until for each in under_way), default=math.inf)
            try:
                sent, outcome = done.get(timeout=max(0, min(start, given_up, self.deadline) - now))
            except queue.Empty:
                over = [each for each in under_way if each.until <= time.monotonic()]
                under_way.difference_update(over)
                for sent in over:
                    yield sent, TemporaryError(f"no answer within {self._request_timeout:.3g} s")
                continue
            if sent in under_way:
                under_way.remove(sent)
                yield sent, outcome

    def hold(self, seconds: float) -> None:
        """Sends nothing for that many seconds: Brapi asked for a pause."""
        self._next_start = max(self._next_start, time.monotonic() + seconds)

    def _next(self, waiting: list[Pending]) -> float:
        """When the next request may start."""
        return max(self._next_start, min((pending.due for pending in waiting), default=math.inf))

    def _send(
        self,
        pending: Pending,
        path: str,
        parameters: Mapping[str, str],
        done: queue.SimpleQueue[tuple[Sent, Outcome]],
    ) -> Sent:
        now = time.monotonic()
        self.requests += 1
        sent = Sent(pending, to_milliseconds(clock.utc_now()), now + self._request_timeout)

        def get() -> None:
            try:
                whole = path + ",".join(pending.batch)
                done.put((sent, self._connection.get(whole, parameters, self._request_timeout)))
            except BaseException as error:
                done.put((sent, error))

        threading.Thread(target=get, name="brapi-request", daemon=True).start()
        self._next_start = time.monotonic() + self._interval
        return sent


def _first(waiting: list[Pending]) -> Pending:
    """Takes what is due first."""
    first = min(waiting, key=lambda pending: pending.due)
    waiting.remove(first)
    return first
