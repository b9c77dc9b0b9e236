"""Asks Brapi for many tickers at its rate, and accounts for every one of them.

A request is sent in its turn (`request_queue.py`), is retried while that can help and the time
allows, and ends as an answer for each of its tickers or as the reason why there is none.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from market_data_pipeline.brapi.answers import (
    Asked,
    History,
    UsageWindow,
    read_history,
    read_quote,
    read_usage_window,
    results_by_ticker,
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
from market_data_pipeline.brapi.plans import Plan, batches, plan_of_quota
from market_data_pipeline.brapi.request_queue import Outcome, Pending, RequestQueue, Sent
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import Window

T = TypeVar("T")
Results = dict[str, Mapping[str, Any]]
Read = Callable[[Mapping[str, Any], Asked], T]

MAX_ATTEMPTS = 4
FIRST_BACKOFF_SECONDS = 1.0
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
        self._queue = RequestQueue(
            connection, min_interval, request_timeout, time.monotonic() + step_timeout
        )
        self._batch_size = plan.tickers_per_request
        self._reached = self._answered = False
        self._breakdowns = self._spent = 0
        self._limit: int | None = None
        self._left: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        actual = plan_of_quota(self._limit or 0)
        if actual is None or actual.name == self.plan.name:
            return False
        self.plan = actual
        return True

    @property
    def account(self) -> Account:
        """What the requests so far have cost, and what is left."""
        return Account(self._queue.requests, self._spent, self._limit, self._left)

    def usage_window(self) -> UsageWindow | None:
        """The time that the quota is for, None if Brapi does not tell."""
        for _, outcome in self._queue.outcomes([Pending(())], {}, "/api/v2/user/usage"):
            return read_usage_window(outcome.body) if isinstance(outcome, Reply) else None
        return None

    def _fetch(
        self,
        tickers: Sequence[str],
        parameters: Mapping[str, str],
        read: Read[T],
        on_progress: Callable[[Progress], None],
    ) -> Fetch[T]:
        started, requests_before = time.monotonic(), self._queue.requests
        answers: dict[str, T] = {}
        failures: dict[str, str] = {}
        ended_because = "no answer within the time of the step"
        waiting = [Pending(batch) for batch in batches(tickers, self._batch_size)]
        for sent, outcome in self._queue.outcomes(waiting, parameters):
            answered: dict[str, T] = {}
            failed: dict[str, str] = {}
            try:
                answered, failed = self._read(sent, outcome, read)
            except BatchTooLargeError:
                self._shrink(len(sent.pending.batch))
                waiting[:] = [
                    each for pending in (sent.pending, *waiting) for each in self._parts(pending)
                ]
            except (TemporaryError, TickerError) as error:
                if pause := self._pause_beyond_the_step(error):
                    waiting.clear()  # what is under way is waited for, as it is paid for
                    ended_because = (
                        f"{error}: Brapi asks to wait {pause:.0f} s, longer than this step may"
                    )
                    continue
                again = self._again(sent.pending, error)
                waiting += again
                failed = {} if again else dict.fromkeys(sent.pending.batch, str(error))
            answers |= answered
            failures |= failed
            done = len(answers) + len(failures)
            seconds_left = (len(tickers) - done) / self._batch_size * self._min_interval
            on_progress(Progress(done, len(failures), len(tickers), seconds_left))
        for ticker in tickers:
            if ticker not in answers:
                failures.setdefault(ticker, ended_because)
        return Fetch(
            answers={ticker: answers[ticker] for ticker in tickers if ticker in answers},
            failures={ticker: failures[ticker] for ticker in tickers if ticker in failures},
            requests=self._queue.requests - requests_before,
            seconds=time.monotonic() - started,
        )

    def _read(
        self, sent: Sent, outcome: Outcome, read: Read[T]
    ) -> tuple[dict[str, T], dict[str, str]]:
        """The answers, and the failures, of the tickers of a request."""
        if isinstance(outcome, BaseException):
            raise outcome
        self._note(outcome)
        batch = sent.pending.batch
        if outcome.status != 200:
            # An answer to the many sent at once may lack the header that those before it had.
            left = self._left if outcome.quota_left is None else outcome.quota_left
            error = refusal(outcome.status, outcome.body, outcome.retry_after, left)
            too_large = isinstance(error, BatchTooLargeError)
            raise TickerError(str(error)) if too_large and len(batch) == 1 else error
        try:
            results = results_by_ticker(outcome.body, batch)
        except ValueError as error:
            raise TemporaryError(f"the answer cannot be read: {error}") from None
        self._answered = True
        asked = {ticker: Asked(ticker, sent.asked_at, outcome.origin) for ticker in batch}
        return _read_each(batch, results, asked, read)

    def _note(self, reply: Reply) -> None:
        """Keeps what is left of the quota: the least, as answers overtake each other."""
        self._reached |= reply.status != 200 or isinstance(reply.body, Mapping)
        if reply.quota_left is not None:
            self._spent += 1
            self._limit = reply.quota_limit or self._limit
            known = [left for left in (self._left, reply.quota_left) if left is not None]
            self._left = min(known)

    def _shrink(self, refused: int) -> None:
        """A batch of that size was refused: the plan is another one than was thought."""
        plan = plan_of_quota(self._limit) if self._limit else None
        smaller = plan.tickers_per_request if plan else refused
        self._batch_size = min(self._batch_size, max(1, min(smaller, refused // 2)))

    def _parts(self, pending: Pending) -> list[Pending]:
        return [replace(pending, batch=batch) for batch in batches(pending.batch, self._batch_size)]

    def _pause_beyond_the_step(self, error: BrapiError) -> float | None:
        """The seconds of a pause that the step has no time for; a shorter one is made."""
        if not isinstance(error, TemporaryError) or error.retry_after is None:
            return None
        self._queue.hold(error.retry_after)
        until = time.monotonic() + error.retry_after
        return error.retry_after if until >= self._queue.deadline else None

    def _again(self, pending: Pending, error: BrapiError) -> list[Pending]:
        """What to ask after an error: the same later, or its tickers in two halves."""
        if isinstance(error, TemporaryError):
            self._stop_if_brapi_is_down(error)
            delay = _backoff(pending.attempt) if error.retry_after is None else error.retry_after
            due = time.monotonic() + delay
            if pending.attempt < MAX_ATTEMPTS and due < self._queue.deadline:
                return [replace(pending, attempt=pending.attempt + 1, due=due)]
            if error.too_many:
                return []
        # One ticker may be what spoils the batch, unless Brapi answers nothing at all.
        if len(pending.batch) == 1 or not (isinstance(error, TickerError) or self._answered):
            return []
        return [Pending(batch) for batch in batches(pending.batch, (len(pending.batch) + 1) // 2)]

    def _stop_if_brapi_is_down(self, error: TemporaryError) -> None:
        self._breakdowns += not error.too_many
        if self._answered or self._breakdowns < FAILURES_OF_A_BREAKDOWN:
            return
        if not self._reached:
            raise OutageError(
                f"Brapi cannot be reached at {self._connection.host}: {error}. Check "
                "BRAPI_BASE_URL and the network, then materialize the window again."
            )
        raise OutageError(
            f"Brapi is down: none of the first {FAILURES_OF_A_BREAKDOWN} requests was answered "
            f"({error}), so no more were sent. Materialize the window again while it is live."
        )


def _read_each(
    batch: tuple[str, ...], results: Results, asked: Mapping[str, Asked], read: Read[T]
) -> tuple[dict[str, T], dict[str, str]]:
    answers: dict[str, T] = {}
    failures: dict[str, str] = {}
    for ticker in batch:
        if ticker not in results:
            failures[ticker] = "missing from the answer"
            continue
        try:
            answers[ticker] = read(results[ticker], asked[ticker])
        except TickerError as error:
            failures[ticker] = str(error)
    return answers, failures


def _backoff(attempt: int) -> float:
    """Seconds before the next attempt: twice as long each time, spread so that many differ."""
    longest = FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1)
    return random.uniform(longest / 2, longest)
