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
    Asked,
    History,
    UsageWindow,
    read_history,
    read_quote,
    read_usage_window,
    results_by_ticker,
    to_milliseconds,
)
from market_data_pipeline.brapi.connection import Connection, Reply
from market_data_pipeline.brapi.errors import (
    BatchTooLargeError,
    BrapiError,
    OutageError,
    TemporaryError,
    TickerError,
    refusal,
)
from market_data_pipeline.brapi.pace import Pace, Stopped
from market_data_pipeline.brapi.plans import Plan, batches, plan_of_quota
from market_data_pipeline.quote import Quote
from market_data_pipeline.windows import Window

T = TypeVar("T")
Results = dict[str, Mapping[str, Any]]
Read = Callable[[Mapping[str, Any], Asked], T]

MAX_ATTEMPTS = 4
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 1.0, 20.0
MAX_OPEN_REQUESTS = 24
# So many failures of Brapi (5xx, time-outs, connections) before its first answer: it is down.
FAILURES_OF_A_BREAKDOWN = 12


@dataclass(frozen=True)
class Fetch(Generic[T]):
    """The outcome for every ticker, in the order in which they were asked for.

    `answers` and `failures` (the reason, in words) share out the tickers between them.
    """

    answers: dict[str, T]
    failures: dict[str, str]
    requests: int
    seconds: float


@dataclass(frozen=True)
class Account:
    """The requests of a client, those that the quota counted, and the quota by the last answer."""

    requests: int
    spent: int
    limit: int | None
    left: int | None


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
    reached: bool = False
    """Whether anything that could be Brapi has answered."""
    answered: bool = False
    """Whether any request had the answer that it asked for."""
    breakdowns: int = 0
    """How many requests failed on Brapi's side."""
    quota_spent: int = 0
    quota_limit: int | None = None
    quota_left: int | None = None
    ended_because: str = "no answer within the time of the step"
    lock: threading.Lock = field(default_factory=threading.Lock)

    def starts(self) -> None:
        with self.lock:
            self.requests += 1

    def note(self, reply: Reply) -> None:
        """Keeps what is left of the quota: the least, as answers overtake each other."""
        with self.lock:
            self.reached |= reply.status != 200 or isinstance(reply.body, Mapping)
            if reply.quota_left is not None:
                self.quota_spent += 1
                self.quota_limit = reply.quota_limit or self.quota_limit
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

    def quotes(
        self, tickers: Sequence[str], window: Window, on_progress: Callable[[Progress], None]
    ) -> Fetch[Quote]:
        """The current quote of each ticker, filed under a window.

        Raises:
            RunError: the token, the plan or the quota stops everything.
        """
        return self._fetch(
            tickers, {}, lambda result, asked: read_quote(result, asked, window), on_progress
        )

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
            PlanError: the plan does not reach back that far, or the token's has no such bars.
            RunError: the token, the plan or the quota stops everything.
        """
        parameters = {"interval": self.plan.bar_interval(window_minutes)}
        parameters |= self.plan.history_span(*days, today)
        return self._fetch(tickers, parameters, read_history, on_progress)

    def adopt_actual_plan(self) -> bool:
        """Takes the plan that the answers' quota tells of for `plan`; whether that is another.

        To be called when Brapi has refused what `plan` was thought to allow.
        """
        actual = plan_of_quota(self._ledger.quota_limit or 0)
        if actual is None or actual.name == self.plan.name:
            return False
        self.plan, self._pace = actual, self._pace.anew()
        return True

    @property
    def account(self) -> Account:
        """What the requests so far have cost, and what is left."""
        ledger = self._ledger
        return Account(ledger.requests, ledger.quota_spent, ledger.quota_limit, ledger.quota_left)

    def usage_window(self) -> UsageWindow | None:
        """The time that the quota is for, None if Brapi does not tell."""
        try:
            self._pace.wait_for_turn()
            reply = self._request("/api/v2/user/usage", {})
        except (BrapiError, Stopped):
            return None
        return read_usage_window(reply.body)

    def _fetch(
        self,
        tickers: Sequence[str],
        parameters: Mapping[str, str],
        read: Read[T],
        on_progress: Callable[[Progress], None],
    ) -> Fetch[T]:
        started, ledger = time.monotonic(), self._ledger
        requests_before = ledger.requests
        answers: dict[str, T] = {}
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
        )

    def _in_threads(self, tasks: Sequence[Callable[[], Iterator[T]]]) -> Iterator[T]:
        """What the tasks yield, as it comes, until the time of the step is over.

        The threads are daemons: one that hangs on a socket beyond its time is left behind.
        """
        waiting: queue.SimpleQueue[Callable[[], Iterator[T]]] = queue.SimpleQueue()
        done: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()
        for task in tasks:
            waiting.put(task)

        def work() -> None:
            try:
                while True:
                    for outcome in waiting.get_nowait()():
                        done.put(outcome)
            except queue.Empty:
                done.put(Stopped())
            except BaseException as error:
                done.put(error)

        workers = min(len(tasks), MAX_OPEN_REQUESTS)
        for _ in range(workers):
            threading.Thread(target=work, name="brapi", daemon=True).start()
        # Once stopped, no worker asks again: what is under way is waited for, as it is paid for.
        while workers:
            try:
                outcome = done.get(timeout=max(0.0, self._deadline - time.monotonic()))
            except queue.Empty:
                self._pace.stop()
                return
            if isinstance(outcome, Stopped):
                workers -= 1
            elif isinstance(outcome, BaseException):
                self._pace.stop()
                raise outcome
            else:
                yield outcome

    def _ask_until_answered(
        self, batch: tuple[str, ...], parameters: Mapping[str, str], read: Read[T]
    ) -> Iterator[tuple[dict[str, T], dict[str, str]]]:
        """Answers and failures, part by part, that between them hold every ticker of the batch."""
        try:
            results, observed_at, origin = self._ask_with_retries(batch, parameters)
        except BatchTooLargeError:
            size = self._ledger.batch_size
        except (TemporaryError, TickerError) as error:
            # One ticker may be what spoils the batch, unless Brapi answers nothing at all.
            if len(batch) == 1 or not (isinstance(error, TickerError) or self._ledger.answered):
                yield {}, dict.fromkeys(batch, str(error))
                return
            size = (len(batch) + 1) // 2
        else:
            asked = {ticker: Asked(ticker, observed_at, origin) for ticker in batch}
            yield _read_each(batch, results, asked, read)
            return
        for smaller in batches(batch, size):
            yield from self._ask_until_answered(smaller, parameters, read)

    def _ask_with_retries(
        self, batch: tuple[str, ...], parameters: Mapping[str, str]
    ) -> tuple[Results, datetime, str]:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return self._ask(batch, parameters)
            except TemporaryError as error:
                self._stop_if_brapi_is_down(error)
                delay = _backoff(attempt)
                if error.retry_after is not None:
                    delay = self._wait_asked_for(error)
                if attempt == MAX_ATTEMPTS or time.monotonic() + delay >= self._deadline:
                    raise
            self._pace.sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    def _stop_if_brapi_is_down(self, error: TemporaryError) -> None:
        ledger = self._ledger
        with ledger.lock:
            ledger.breakdowns += not error.too_many
            if ledger.answered or ledger.breakdowns < FAILURES_OF_A_BREAKDOWN:
                return
        if not ledger.reached:
            raise OutageError(
                f"Brapi cannot be reached at {self._connection.host}: {error}. Check "
                "BRAPI_BASE_URL and the network, then materialize the window again."
            )
        raise OutageError(
            f"Brapi is down: none of the first {FAILURES_OF_A_BREAKDOWN} requests was answered "
            f"({error}), so no more were sent. Materialize the window again while it is live."
        )

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
    ) -> tuple[Results, datetime, str]:
        """One request: the results of its answer by ticker, when it was asked, and who answered."""
        self._pace.wait_for_turn()
        if len(batch) > self._ledger.batch_size:
            raise BatchTooLargeError("a batch of this size was refused already")
        observed_at = to_milliseconds(clock.utc_now())
        reply = self._request(f"/api/quote/{','.join(batch)}", parameters)
        if reply.status != 200:
            # An answer to the many sent at once may lack the header that those before it had.
            left = self._ledger.quota_left if reply.quota_left is None else reply.quota_left
            error = refusal(reply.status, reply.body, reply.retry_after, left)
            if isinstance(error, BatchTooLargeError):
                if len(batch) == 1:
                    raise TickerError(str(error))
                self._ledger.shrink(len(batch))
            raise error
        try:
            results = results_by_ticker(reply.body, batch)
        except ValueError as error:
            raise TemporaryError(f"the answer cannot be read: {error}") from None
        self._ledger.answered = True
        return results, observed_at, reply.origin

    def _request(self, path: str, parameters: Mapping[str, str]) -> Reply:
        """One request whose turn has come."""
        self._ledger.starts()
        # A little beyond the step's end: then it is the step that says its time is over.
        left = self._deadline + 1 - time.monotonic()
        reply = self._connection.get(path, parameters, min(self._request_timeout, max(0.01, left)))
        self._ledger.note(reply)
        return reply


def _read_each(
    batch: tuple[str, ...], results: Results, asked: Mapping[str, Asked], read: Read[T]
) -> tuple[dict[str, T], dict[str, str]]:
    answers: dict[str, T] = {}
    failures: dict[str, str] = {}
    for ticker in batch:
        if ticker not in results:
            failures[ticker] = "missing in the answer"
            continue
        try:
            answers[ticker] = read(results[ticker], asked[ticker])
        except TickerError as error:
            failures[ticker] = str(error)
    return answers, failures


def _backoff(attempt: int) -> float:
    """Seconds before the next attempt: twice as long each time, spread so that many differ."""
    longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1))
    return random.uniform(longest / 2, longest)
