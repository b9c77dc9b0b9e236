"""Asks Brapi for many tickers; each ends as an answer or as a failure with a reason.

`request_queue.py` sends the requests at Brapi's rate. A request is repeated while that can help and
there is time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from typing import Any, Self, TypeVar

import dagster as dg

from market_data_pipeline.brapi.answers import (
    History,
    read_history,
    read_quote,
    read_usage_window,
    results_by_ticker,
)
from market_data_pipeline.brapi.connection import Account, Connection, Question, Reply
from market_data_pipeline.brapi.errors import RunError, TemporaryError, TickerError, refusal
from market_data_pipeline.brapi.plans import PLANS, Plan, batches
from market_data_pipeline.brapi.request_queue import MAX_OPEN_REQUESTS, Request, RequestQueue
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import Window
from market_data_pipeline.settings import Settings

T = TypeVar("T")
Read = Callable[[Mapping[str, Any], str, Reply], T]

MAX_ATTEMPTS = 4
FIRST_BACKOFF_SECONDS = 1.0
SECONDS_BETWEEN_PROGRESS_LINES = 5.0
# If so many requests fail (5xx, time-outs, connections) before the first answer, Brapi is down.
# Repeated ones do not count: a ticker may make each batch fail until it is halved.
FAILURES_OF_A_BREAKDOWN = 12
QUOTES, USAGE = "/api/quote/", "/api/v2/user/usage"
# Bytes. A quote has 2 KB, a bar up to 180.
ANSWER_OF_A_TICKER, BAR, ANSWER_WITHOUT_BARS = 2**20, 256, 2 * 2**20


@dataclass(frozen=True)
class Brapi:
    """Brapi, the source of B3's quotes, as the settings say; a resource of Dagster.

    Example:
        ```python
        import dagster as dg
        from market_data_pipeline.brapi.client import Brapi
        from market_data_pipeline.settings import Settings

        @dg.asset
        def usage(brapi: dg.ResourceParam[Brapi]) -> None:
            with brapi.client() as client:
                print(client.usage_window())

        defs = dg.Definitions([usage], resources={"brapi": Brapi(Settings(brapi_token="…"))})
        ```
    """

    settings: Settings

    def client(self) -> BrapiClient:
        """A client for one step, to be used in a `with` statement.

        Raises:
            RunError: the token cannot be used; the text says what to set.
        """
        return BrapiClient(self.settings, self.plan)

    @property
    def plan(self) -> Plan:
        """The plan, with the settings that override it."""
        settings, plan = self.settings, PLANS[self.settings.brapi_plan]
        intraday = settings.brapi_intraday
        return replace(
            plan,
            tickers_per_request=settings.brapi_tickers_per_request or plan.tickers_per_request,
            intraday=plan.intraday if intraday is None else intraday,
            longest_range=settings.brapi_longest_range or plan.longest_range,
        )


class BrapiClient:
    """A client of Brapi for one step, whose time counts from now; a context manager."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.plan = plan
        self._interval = settings.brapi_min_interval_seconds
        self._connection = Connection(settings, MAX_OPEN_REQUESTS)
        self._queue = RequestQueue(self._connection, settings)
        self._progress_logged_at = time.monotonic()
        self.account = Account()
        self.cost_of_the_quotes = 0
        """How many requests the quota counted for them; 0 until they are there."""
        self._answered = False
        self._ended_because = "no answer within the time of the step"
        self._breakdowns = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def quotes(self, tickers: Sequence[str], window: Window) -> dict[str, Quote | str]:
        """The current quote of each ticker, filed under a window, or the reason for none.

        Raises:
            RunError: the token, the plan or the quota refuses all requests.
        """
        found = self._fetch(tickers, partial(read_quote, window=window), {}, bars=0)
        self.cost_of_the_quotes = self.account.spent
        return found

    def history(
        self,
        tickers: Sequence[str],
        days: tuple[date, date],
        today: date,
        window_minutes: int,
    ) -> dict[str, History | str]:
        """The bars of each ticker from one day to another (both in São Paulo, both included), or
        the reason for none; there may be more bars on either side.

        Raises:
            RunError: the plan does not reach back that far, or the token, the plan or the quota
                refuses all requests.
        """
        query, bars = self.plan.history_query(*days, today, window_minutes)
        return self._fetch(tickers, read_history, query, bars)

    @property
    def requests(self) -> int:
        """How many have been sent."""
        return self._queue.requests

    def usage_window(self) -> tuple[str, datetime] | None:
        """The type of the quota's period and its end (UTC); None if Brapi does not say."""
        question = Question(USAGE, {}, ANSWER_OF_A_TICKER)
        for _, outcome in self._queue.outcomes(question, [Request(())]):
            if isinstance(outcome, Reply):
                return read_usage_window(self._connection.json(outcome))
        return None

    def _fetch(
        self, tickers: Sequence[str], read: Read[T], parameters: Mapping[str, str], bars: int
    ) -> dict[str, T | str]:
        """Asks for quotes, with up to that many bars of each ticker."""
        found: dict[str, T | str] = {}
        size = min(len(tickers), self.plan.tickers_per_request) or 1
        largest = min(size * ANSWER_OF_A_TICKER, ANSWER_WITHOUT_BARS) + size * bars * BAR
        question = Question(QUOTES, parameters, largest)
        waiting = [Request(batch) for batch in batches(tickers, size)]
        for request, outcome in self._queue.outcomes(question, waiting):
            try:
                # Here, and not in `_read`: the traceback would keep the body in memory for longer.
                if isinstance(outcome, BaseException):
                    raise outcome
                found |= self._read(request, outcome, read)
            except (TemporaryError, TickerError) as error:
                pause = error.retry_after if error.too_many else None
                if pause is not None and not self._queue.hold(pause):
                    waiting.clear()  # those under way already count, so wait for them
                    wait = f"Brapi asks to wait {pause:.0f} s, longer than this step has left"
                    self._ended_because = f"{error}: {wait}"
                elif again := self._again(request, error):
                    waiting += again
                else:
                    found |= dict.fromkeys(request.batch, str(error))
            self._log_progress(found, len(tickers))
        return {ticker: found.get(ticker, self._ended_because) for ticker in tickers}

    def _log_progress(self, found: Mapping[str, object], tickers: int) -> None:
        if time.monotonic() - self._progress_logged_at < SECONDS_BETWEEN_PROGRESS_LINES:
            return
        self._progress_logged_at = time.monotonic()
        failed = sum(isinstance(each, str) for each in found.values())
        seconds = (tickers - len(found)) / self.plan.tickers_per_request * self._interval
        dg.get_dagster_logger().info(
            f"{len(found)} of {tickers} tickers done, {failed} failed, about {seconds:.0f} s left"
        )

    def _read(self, request: Request, reply: Reply, read: Read[T]) -> dict[str, T | str]:
        """The answer for each ticker of a request, or the reason for none."""
        body, batch = self._connection.json(reply), request.batch
        if isinstance(body, Mapping) and reply.status < 500:  # else the figures may be a proxy's
            self.account.note(reply)
        if error := refusal(reply.status, body, len(batch), reply.retry_after, self.account.left):
            raise error
        results = results_by_ticker(body, batch)
        self._answered = True
        found: dict[str, T | str] = dict.fromkeys(batch, "missing from the answer")
        for ticker, several in results.items():
            try:
                found[ticker], *others = dict.fromkeys(
                    read(each, ticker, reply) for each in several
                )
                if others:
                    raise TickerError("answered twice, with different values")
            except TickerError as error:
                found[ticker] = str(error)
        return found

    def _again(self, request: Request, error: TemporaryError | TickerError) -> list[Request]:
        """The requests after an error: the same one later, or its tickers in two halves."""
        batch = request.batch
        if isinstance(error, TemporaryError):
            if request.attempt == 1 and not error.too_many:
                self._stop_if_brapi_is_down(error)
            delay = _backoff(request.attempt) if error.retry_after is None else error.retry_after
            due = time.monotonic() + delay
            if request.attempt < MAX_ATTEMPTS and due < self._queue.deadline:
                return [Request(batch, request.attempt + 1, due)]
            if error.too_many:
                return []
        if len(batch) == 1:
            return []
        # One ticker may make the whole batch fail.
        return [Request(half) for half in batches(batch, (len(batch) + 1) // 2)]

    def _stop_if_brapi_is_down(self, error: TemporaryError) -> None:
        self._breakdowns += 1
        if not self._answered and self._breakdowns >= FAILURES_OF_A_BREAKDOWN:
            raise RunError(
                f"Brapi answered none of the first {self.requests} requests ({error}), "
                f"so no more were sent. Check BRAPI_BASE_URL ({self._connection.host}), "
                "BRAPI_TOKEN and the network, then materialize the window again."
            )


def _backoff(attempt: int) -> float:
    """Seconds before the next attempt: twice as long each time, and up to half less at random."""
    longest = FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1)
    return random.uniform(longest / 2, longest)
