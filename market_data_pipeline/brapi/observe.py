"""Asks Brapi for the quotes of windows, and says why some are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Literal, TypeVar

import dagster as dg

from market_data_pipeline.brapi.answers import Bar, History
from market_data_pipeline.brapi.bars import Gap, bars_of_windows
from market_data_pipeline.brapi.client import BrapiClient
from market_data_pipeline.brapi.errors import BrapiError, RunError
from market_data_pipeline.brapi.plans import Plan
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window, close_of
from market_data_pipeline.runs.common import WINDOWS

T = TypeVar("T", Quote, History)
Missing = Gap | Literal["failed"]
# Why a ticker has no row in a window, in words about a plan.
REASONS: dict[Missing, str] = {
    "no trade": "there was no trade",
    "plan": "the {0.name} plan has daily bars only",
    "too far back": "the history of the {0.name} plan reaches back {0.longest_range}",
    "off the grid": "Brapi's bars do not start where the window starts",
    "too early": "the bars are complete {0.delay_minutes} minutes after the window's end",
    "other interval": "Brapi's bars may not have the requested length",
    "failed": "Brapi gave no usable answer",
}


@dataclass
class Observation:
    """The quotes of some windows, and why others are missing.

    `missing` has, for each window that was to be observed, the reason for each ticker without a
    row; `failures` the reason, in words, for each ticker that Brapi did not answer for. `plan` is
    the plan of the requests, `requests` how many there were, `seconds` how long they took.
    """

    plan: Plan
    missing: dict[Window, dict[str, Missing]]
    quotes: list[Quote] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    seconds: float = 0.0

    def fail(self, failures: Mapping[str, str], windows: Iterable[Window]) -> None:
        """Notes tickers without an answer; a window without a bar keeps its reason."""
        self.failures |= failures
        for window in windows:
            for ticker in failures:
                self.missing[window].setdefault(ticker, "failed")

    def note_left_out(self, quotes: Mapping[Quote, str]) -> None:
        """Notes quotes that are not kept, and why: a better one of the window is stored."""
        for quote, why in quotes.items():
            dg.get_dagster_logger().warning(f"{quote.requested_ticker} failed: {why}")
            self.fail({quote.requested_ticker: why}, [quote.window])

    def by_reason(self, window: Window) -> dict[Missing, list[str]]:
        """The tickers without a row in a window, for each reason."""
        reasons = self.missing[window]
        return {why: [each for each in reasons if reasons[each] == why] for why in REASONS}

    def why_empty(self, window: Window) -> str:
        """The most common reason for a window to have no row, in words."""
        return self.in_words(self._commonest(window))

    def is_lacking(self, window: Window) -> bool:
        """Whether an empty window is a failure: not if the plan has no bar, or stocks had closed.

        No plan has bars for the windows after the close.
        """
        why = self._commonest(window)
        after_the_close = window.start >= close_of(window.day)
        return why not in {"plan", "too far back"} and not (why == "no trade" and after_the_close)

    def in_words(self, why: Missing) -> str:
        """A reason for tickers to have no row, in words."""
        return REASONS[why].format(self.plan)

    def _commonest(self, window: Window) -> Missing:
        tickers = self.by_reason(window)
        return max(tickers, key=lambda why: len(tickers[why]))


def observe(
    client: BrapiClient, tickers: Sequence[str], windows: Sequence[Window], now: datetime
) -> Observation:
    """The quotes of some windows; if a past one fails, the live one is not lost with it.

    Raises:
        RunError: no ticker was answered for (in the live window, if it is among them), the plan
            reaches back to none of the windows, or the token, the plan or the quota stops the run.
    """
    started = monotonic()
    live = next((each for each in windows if WINDOWS.is_live(each, now)), None)
    past = [window for window in windows if window != live]
    observation = _unasked(client.plan, tickers, past, now)
    if live:  # first: it does not stay live for long
        _observe_live(observation, client, tickers, live)
    # The past windows can be asked for again.
    failures = dict(observation.failures) if live else observation.failures
    try:
        if past:
            _observe_history(observation, client, tickers, past, now)
    except BrapiError as error:
        if live is None:
            raise
        observation.fail(dict.fromkeys(tickers, str(error)), past)
    observation.requests, observation.seconds = client.requests, monotonic() - started
    _log(observation, len(tickers))
    _demand_an_answer(failures, len(tickers))
    return observation


def _observe_live(
    observation: Observation, client: BrapiClient, tickers: Sequence[str], window: Window
) -> None:
    """Adds the current quotes, filed under the live window.

    If a ticker was requested, or traded, when the window was no longer live, it is a failure: its
    quote belongs to another window.
    """
    observation.missing[window] = {}
    over = WINDOWS.live_until(window)
    for ticker, quote in _account(observation, client.quotes(tickers, window), [window]):
        if max(quote.observed_at, quote.updated_at) < over:
            observation.quotes.append(quote)
        else:
            why = "answered too late: the window was no longer live"
            observation.fail({ticker: why}, [window])


def _observe_history(
    observation: Observation,
    client: BrapiClient,
    tickers: Sequence[str],
    windows: Sequence[Window],
    now: datetime,
) -> None:
    """Adds the quotes of past windows (at least one), from the bars of the price history.

    Nothing is requested for windows that cannot have a bar.

    Raises:
        RunError: the plan reaches back to none of the windows, Brapi is down, or the token, the
            plan or the quota stops the whole run.
    """
    minutes = int(WINDOWS.interval.total_seconds() // 60)
    interval = client.plan.bar_interval(minutes)
    today = now.astimezone(EXCHANGE_TIMEZONE).date()
    served = [window for window in windows if not observation.missing[window]]
    if not served and max(windows).day >= client.plan.first_day(today):
        return
    asked = served or windows  # all of them are too far back: the plan says so
    days = min(asked).day, max(asked).day
    found = client.history(tickers, days, today, minutes)
    for ticker, history in _account(observation, found, windows):
        for window, bar in bars_of_windows(history, served, interval).items():
            if isinstance(bar, Bar):
                observation.quotes.append(_quote_of_bar(ticker, history, window, bar, interval))
            else:
                observation.missing[window][ticker] = bar


def as_stored(
    plan: Plan,
    tickers: Sequence[str],
    windows: Sequence[Window],
    now: datetime,
    rows: Sequence[Quote],
) -> Observation:
    """What is stored of some windows, as if it had just been observed."""
    observation = _unasked(plan, tickers, windows, now)
    for quote in rows:
        observation.missing[quote.window] = {}
    there = {quote.requested_ticker for quote in rows}
    lacking = {each: "no quote is stored" for each in tickers if each not in there}
    observation.fail(lacking, windows)
    return observation


def _unasked(
    plan: Plan, tickers: Sequence[str], windows: Sequence[Window], now: datetime
) -> Observation:
    """What is known of past windows without a request: those that the plan has no bar for."""
    first_day = plan.first_day(now.astimezone(EXCHANGE_TIMEZONE).date())
    observation = Observation(plan, {window: {} for window in windows})
    for window in windows:
        why: Missing | None = None
        if window.day < first_day:
            why = "too far back"
        elif not plan.intraday and not WINDOWS.is_last(window):
            why = "plan"
        elif window.end > now - timedelta(minutes=plan.delay_minutes):
            why = "too early"
        if why:
            observation.missing[window] = dict.fromkeys(tickers, why)
    return observation


def _log(observation: Observation, tickers: int) -> None:
    log = dg.get_dagster_logger()
    if not observation.requests:
        log.info("No request was sent: Brapi has no bar for any of these windows.")
        return
    for ticker, reason in observation.failures.items():
        log.warning(f"{ticker} failed: {reason}")
    failed = len(observation.failures)
    log.info(f"Ingestion completed: {tickers - failed} succeeded, {failed} failed")


def _demand_an_answer(failures: Mapping[str, str], tickers: int) -> None:
    if len(failures) == tickers:
        reasons = list(failures.values())
        commonest = max(set(reasons), key=reasons.count)
        raise RunError(
            f"Brapi answered for 0 of {tickers} tickers, most often because: {commonest}. "
            "Nothing was stored; materialize the window again."
        )


def _account(
    observation: Observation, found: Mapping[str, T | str], windows: Iterable[Window]
) -> list[tuple[str, T]]:
    """Notes the tickers without an answer; returns the answers to use, one for each symbol."""
    failures = {ticker: each for ticker, each in found.items() if isinstance(each, str)}
    answers = {ticker: each for ticker, each in found.items() if not isinstance(each, str)}
    symbols = {ticker: answer.ticker for ticker, answer in answers.items()}
    # A symbol that was asked for itself has its own answer, or none.
    taken = {symbol: ticker for ticker, symbol in sorted(symbols.items())}
    taken |= {ticker: ticker for ticker in found}
    for ticker, symbol in symbols.items():
        if taken[symbol] != ticker:
            failures[ticker] = (
                f"answered under the symbol {symbol}, like {taken[symbol]}, whose answer counts: "
                "remove one of the two from the watchlist"
            )
    observation.fail(failures, windows)
    return [(ticker, answer) for ticker, answer in answers.items() if ticker not in failures]


def _quote_of_bar(ticker: str, history: History, window: Window, bar: Bar, interval: str) -> Quote:
    assert bar.close is not None
    daily = interval == "1d"
    return Quote(
        ticker=history.ticker,
        name=history.name,
        short_name=history.short_name,
        price=bar.close,
        # Of the last window of a session, the volume of its day is the volume so far.
        volume=bar.volume if daily else None,
        # A bar does not say when its last trade was, only that it was not after its end.
        updated_at=window.end,
        window_start=window.start,
        window_end=window.end,
        observed_at=history.observed_at,
        source="daily" if daily else "intraday",
        requested_ticker=ticker,
        bar_volume=bar.volume,
        origin=history.origin,
    )
