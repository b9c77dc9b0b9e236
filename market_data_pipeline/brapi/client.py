"""Asks Brapi for many tickers at its rate, and accounts for every one of them.

A request takes its turn (`pace.py`), is retried while that can help and the time allows, and ends
as an answer for each of its tickers or as the reason why there is none. Waiting for answers and
waiting for the next turn overlap.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from market_data_pipeline import clock
from market_data_pipeline.brapi.answers import (
    History,
    MarketQuote,
    read_history,
    read_quote,
    results_by_ticker,
)
from market_data_pipeline.brapi.connection import Connection, Reply
from market_data_pipeline.brapi.errors import (
    BatchTooLargeError,
    TemporaryError,
    TickerError,
    refusal,
)
from market_data_pipeline.brapi.pace import Pace, Stopped
from market_data_pipeline.brapi.plans import Plan, batches, plan_of_quota

T = TypeVar("T")
Results = dict[str, Mapping[str, Any]]
Read = Callable[[Mapping[str, Any], datetime], T]

MAX_ATTEMPTS = 4
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 1.0, 20.0
MAX_OPEN_REQUESTS = 24


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What Brapi said of one ticker, and when it was asked (UTC)."""

    value: T
    observed_at: datetime


@dataclass(frozen=True)
class Fetch(Generic[T]):
    """The outcome for every ticker, in the order in which they were asked for.

    `answers` and `failures` (the reason, in words) share out the tickers between them.
    `quota_limit` and `quota_left` are as the last answer had them, None if none did.
    """

    answers: dict[str, Answer[T]]
    failures: dict[str, str]
    requests: int
    seconds: float
    quota_limit: int | None
    quota_left: int | None


@dataclass(frozen=True)
class Progress:
    """How far a fetch has come: tickers done (with or without an answer), failed, of how many."""

    done: int
    failed: int
    total: int
    seconds_left: float


@dataclass
class _Ledger:
    """What all requests of a client have in common, and how large a batch may be by now."""

    batch_size: int
    requests: int = 0
    last_start: float = 0.0
    quota_limit: int | None = None
    quota_left: int | None = None
    ended_because: str = "no answer within the time of the step"
    lock: threading.Lock = field(default_factory=threading.Lock)

    def starts(self) -> None:
        with self.lock:
            self.requests += 1
            self.last_start = time.monotonic()

    def note(self, reply: Reply) -> None:
        """Keeps what is left of the quota: the least, as answers overtake each other."""
        with self.lock:
            if reply.quota_left is not None:
                self.quota_limit = reply.quota_limit
                known = [left for left in (self.quota_left, reply.quota_left) if left is not None]
                self.quota_left = min(known)

    def shrink(self, refused: int) -> None:
        """A batch of that size was refused: the plan is another one than was thought."""
        with self.lock:
            plan = plan_of_quota(self.quota_limit) if self.quota_limit else None
            smaller = plan.tickers_per_request if plan else refused // 2
            self.batch_size = min(self.batch_size, max(1, min(smaller, refused // 2)))


class BrapiClient:
    """Brapi, for the length of one step. A context manager.

    Args:
        connection: the way to Brapi; closed with the client.
        plan: what the token may ask for.
        min_interval: seconds between the starts of two requests.
        request_timeout: seconds for one request, from connecting to the last byte.
        step_timeout: seconds from now within which every fetch of this client ends.
    """

    def __init__(
        self,
        connection: Connection,
        plan: Plan,
        *,
        min_interval: float,
        request_timeout: float,
        step_timeout: float,
    ) -> None:
        self._connection = connection
        self.plan = plan
        self._min_interval = min_interval
        self._request_timeout = request_timeout
        self._deadline = time.monotonic() + step_timeout
        self._pace = Pace(min_interval)
        self._ledger = _Ledger(plan.tickers_per_request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pace.stop()
        self._connection.close()
        # The next run's first request keeps its distance from this one's last.
        time.sleep(max(0.0, self._ledger.last_start + self._min_interval - time.monotonic()))

    def quotes(
        self, tickers: Sequence[str], on_progress: Callable[[Progress], None]
    ) -> Fetch[MarketQuote]:
        """The current quote of each ticker.

        Raises:
            RunError: the token, the plan or the quota stops everything.
        """
        return self._fetch(tickers, {}, read_quote, on_progress)

    def history(
        self,
        tickers: Sequence[str],
        days: tuple[date, date],
        today: date,
        window_minutes: int,
        on_progress: Callable[[Progress], None],
    ) -> Fetch[History]:
        """The bars of each ticker from one day to another (both in São Paulo, both included);
        there may be more on either side.

        Raises:
            PlanError: the plan does not reach back that far; nothing was asked.
            RunError: the token, the plan or the quota stops everything.
        """
        parameters = {"interval": self.plan.bar_interval(window_minutes)}
        parameters |= self.plan.history_span(*days, today)
        return self._fetch(tickers, parameters, lambda result, _: read_history(result), on_progress)

    def _fetch(
        self,
        tickers: Sequence[str],
        parameters: Mapping[str, str],
        read: Read[T],
        on_progress: Callable[[Progress], None],
    ) -> Fetch[T]:
        started, ledger = time.monotonic(), self._ledger
        requests_before = ledger.requests
        answers: dict[str, Answer[T]] = {}
        failures: dict[str, str] = {}
        asked = [
            (lambda batch=batch: self._ask_until_answered(batch, parameters, read))
            for batch in batches(tickers, ledger.batch_size)
        ]
        for answered, failed in self._in_threads(asked):
            answers |= answered
            failures |= failed
            done = len(answers) + len(failures)
            seconds_left = (len(tickers) - done) / ledger.batch_size * self._min_interval
            on_progress(Progress(done, len(failures), len(tickers), seconds_left))
        for ticker in tickers:
            if ticker not in answers:
                failures.setdefault(ticker, ledger.ended_because)
        return Fetch(
            answers={ticker: answers[ticker] for ticker in tickers if ticker in answers},
            failures={ticker: failures[ticker] for ticker in tickers if ticker in failures},
            requests=ledger.requests - requests_before,
            seconds=time.monotonic() - started,
            quota_limit=ledger.quota_limit,
            quota_left=ledger.quota_left,
        )

    def _in_threads(self, tasks: Sequence[Callable[[], T]]) -> Iterator[T]:
        """What each task returns, as it comes, until the time of the step is over.

        The threads are daemons: one that hangs on a socket beyond its time is left behind.
        """
        waiting: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()
        done: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()
        for task in tasks:
            waiting.put(task)

        def work() -> None:
            try:
                while True:
                    done.put(waiting.get_nowait()())
            except queue.Empty:
                pass
            except BaseException as error:
                done.put(error)

        for _ in range(min(len(tasks), MAX_OPEN_REQUESTS)):
            threading.Thread(target=work, name="brapi", daemon=True).start()
        for _ in tasks:
            try:
                outcome = done.get(timeout=max(0.0, self._deadline - time.monotonic()))
            except queue.Empty:
                self._pace.stop()
                return
            if isinstance(outcome, Stopped):
                return
            if isinstance(outcome, BaseException):
                self._pace.stop()
                raise outcome
            yield outcome

    def _ask_until_answered(
        self, batch: tuple[str, ...], parameters: Mapping[str, str], read: Read[T]
    ) -> tuple[dict[str, Answer[T]], dict[str, str]]:
        """Answers and failures that between them hold every ticker of the batch."""
        try:
            results, observed_at = self._ask_with_retries(batch, parameters)
        except BatchTooLargeError:
            answers: dict[str, Answer[T]] = {}
            failures: dict[str, str] = {}
            for smaller in batches(batch, self._ledger.batch_size):
                answered, failed = self._ask_until_answered(smaller, parameters, read)
                answers |= answered
                failures |= failed
            return answers, failures
        except (TemporaryError, TickerError) as error:
            return {}, dict.fromkeys(batch, str(error))
        return _read_each(batch, results, observed_at, read)

    def _ask_with_retries(
        self, batch: tuple[str, ...], parameters: Mapping[str, str]
    ) -> tuple[Results, datetime]:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            if len(batch) > self._ledger.batch_size:
                raise BatchTooLargeError("a batch of this size was refused already")
            try:
                return self._ask(batch, parameters)
            except TemporaryError as error:
                delay = _backoff(attempt)
                if error.retry_after is not None:
                    delay = self._wait_asked_for(error)
                if attempt == MAX_ATTEMPTS or time.monotonic() + delay >= self._deadline:
                    raise
            self._pace.sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    def _wait_asked_for(self, error: TemporaryError) -> float:
        """Holds back every request for as long as Brapi asks; ends the fetch if it is too long."""
        assert error.retry_after is not None
        if time.monotonic() + error.retry_after >= self._deadline:
            self._ledger.ended_because = (
                f"{error}: Brapi asks to wait {error.retry_after:.0f} s, longer than this step may"
            )
            self._pace.stop()
            raise Stopped
        self._pace.hold(error.retry_after)
        return error.retry_after

    def _ask(
        self, batch: tuple[str, ...], parameters: Mapping[str, str]
    ) -> tuple[Results, datetime]:
        """One request: the results of its answer by ticker, and when it was asked."""
        self._pace.wait_for_turn()
        self._ledger.starts()
        observed_at = clock.utc_now()
        seconds = min(self._request_timeout, max(0.01, self._deadline - time.monotonic()))
        reply = self._connection.get(f"/api/quote/{','.join(batch)}", parameters, seconds)
        self._ledger.note(reply)
        if reply.status != 200:
            error = refusal(reply.status, reply.body, reply.retry_after, reply.quota_left)
            if isinstance(error, BatchTooLargeError):
                if len(batch) == 1:
                    raise TickerError(str(error))
                self._ledger.shrink(len(batch))
            raise error
        try:
            return results_by_ticker(reply.body, batch), observed_at
        except ValueError as error:
            raise TemporaryError(f"the answer cannot be read: {error}") from None


def _read_each(
    batch: tuple[str, ...], results: Results, observed_at: datetime, read: Read[T]
) -> tuple[dict[str, Answer[T]], dict[str, str]]:
    answers: dict[str, Answer[T]] = {}
    failures: dict[str, str] = {}
    for ticker in batch:
        if ticker not in results:
            failures[ticker] = "missing in the answer"
            continue
        try:
            answers[ticker] = Answer(read(results[ticker], observed_at), observed_at)
        except TickerError as error:
            failures[ticker] = str(error)
    return answers, failures


def _backoff(attempt: int) -> float:
    """Seconds before the next attempt: twice as long each time, spread so that many differ."""
    longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1))
    return random.uniform(longest / 2, longest)
