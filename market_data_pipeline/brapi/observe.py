"""Asks Brapi for the quotes of windows, and says why some are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import TypeVar

from market_data_pipeline.brapi.answers import Bar, History
from market_data_pipeline.brapi.bars import Gap, bars_of_windows
from market_data_pipeline.brapi.client import BrapiClient, Fetch
from market_data_pipeline.brapi.plans import Plan
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, TradingWindows, Window

T = TypeVar("T", Quote, History)
# Why a ticker has no row in a window, in words about a plan: a Gap, or no answer.
REASONS = {
    "no trade": "there was no trade",
    "plan": "the {0.name} plan has daily bars only",
    "too far back": "the history of the {0.name} plan reaches back {0.longest_range}",
    "off the grid": "Brapi's bars do not start where the window starts",
    "too early": "its bars are not complete until {0.delay_minutes} minutes after its end",
    "other interval": "Brapi's bars are not known to be as long as was asked for",
    "failed": "Brapi gave no usable answer",
}
# Stocks close at 17:00 while New York has daylight saving time, and at 18:00 otherwise.
EARLIEST_CLOSE = time(17)


@dataclass
class Observation:
    """The quotes of some windows, and why others are missing.

    `failures` has the reason for each ticker that Brapi did not answer for; `gaps` has, for each
    window, the reason for each ticker without a bar; `answered_as` has the other symbol under which
    a ticker of the watchlist was answered. `plan` is the plan of the requests, `seconds` how long
    they took.
    """

    windows: Sequence[Window]
    plan: Plan
    quotes: list[Quote] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    gaps: dict[Window, dict[str, Gap]] = field(default_factory=dict)
    answered_as: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    seconds: float = 0.0


def observe_live(
    client: BrapiClient,
    tickers: Sequence[str],
    window: Window,
    trading_windows: TradingWindows,
) -> Observation:
    """The current quotes, filed under the live window.

    If a ticker was requested, or traded, when the window was no longer live, it is a failure: its
    quote belongs to another window.

    Raises:
        RunError: Brapi is down, or the token, the plan or the quota stops the whole run.
    """
    observation = Observation([window], client.plan)
    over = trading_windows.live_until(window)
    for ticker, quote in _account(observation, client.quotes(tickers, window)):
        if max(quote.observed_at, quote.updated_at) < over:
            observation.quotes.append(quote)
        else:
            observation.failures[ticker] = "answered too late: the window was no longer live"
    return observation


def observe_history(
    client: BrapiClient,
    tickers: Sequence[str],
    windows: Sequence[Window],
    trading_windows: TradingWindows,
    now: datetime,
) -> Observation:
    """The quotes of past windows (at least one), from the bars of the price history.

    Nothing is requested for windows that cannot have a bar.

    Raises:
        PlanError: the plan does not allow the request, or reaches back to none of the windows.
        RunError: Brapi is down, or the token or the quota stops the whole run.
    """
    observation = Observation(windows, client.plan)
    minutes = int(trading_windows.interval.total_seconds() // 60)
    interval = client.plan.bar_interval(minutes)
    today = now.astimezone(EXCHANGE_TIMEZONE).date()
    served = note_unserved(observation, tickers, trading_windows, now)
    if not served and max(windows).day >= client.plan.first_day(today):
        return observation
    asked = served or windows  # which the plan then refuses
    days = min(asked).day, max(asked).day
    for ticker, history in _account(observation, client.history(tickers, days, today, minutes)):
        for window, bar in bars_of_windows(history, served, interval).items():
            if isinstance(bar, Bar):
                observation.quotes.append(_quote_of_bar(ticker, history, window, bar, interval))
            else:
                observation.gaps.setdefault(window, {})[ticker] = bar
    return observation


def as_stored(
    plan: Plan,
    windows: Sequence[Window],
    rows: Sequence[Quote],
    tickers: Sequence[str],
    trading_windows: TradingWindows,
    now: datetime,
) -> Observation:
    """What is stored of some windows, as if it had just been observed."""
    there = {quote.requested_ticker for quote in rows}
    observation = Observation(
        windows,
        plan,
        list(rows),
        failures={each: "no quote is stored" for each in tickers if each not in there},
        answered_as={q.requested_ticker: q.ticker for q in rows if q.ticker != q.requested_ticker},
    )
    note_unserved(observation, tickers, trading_windows, now)
    for quote in rows:
        observation.gaps.pop(quote.window, None)
    return observation


def note_unserved(
    observation: Observation,
    tickers: Sequence[str],
    trading_windows: TradingWindows,
    now: datetime,
) -> list[Window]:
    """Notes the windows of an observation that the plan has no bar for; returns the others."""
    plan, served = observation.plan, []
    first_day = plan.first_day(now.astimezone(EXCHANGE_TIMEZONE).date())
    for window in observation.windows:
        if window.day < first_day:
            observation.gaps[window] = dict.fromkeys(tickers, "too far back")
        elif not plan.intraday and not trading_windows.is_last(window):
            observation.gaps[window] = dict.fromkeys(tickers, "plan")
        elif window.end > now - timedelta(minutes=plan.delay_minutes):
            observation.gaps[window] = dict.fromkeys(tickers, "too early")
        else:
            served.append(window)
    return served


def failures_of(observations: Sequence[Observation]) -> dict[str, str]:
    """The tickers that Brapi did not answer for, and why."""
    return {ticker: why for each in observations for ticker, why in each.failures.items()}


def missing_in(window: Window, observation: Observation) -> dict[str, list[str]]:
    """The tickers without a row in one of the observed windows, by the reason why."""
    gaps = observation.gaps.get(window, {})
    missing = {why: [each for each in gaps if gaps[each] == why] for why in REASONS}
    missing["failed"] = [ticker for ticker in observation.failures if ticker not in gaps]
    return missing


def why_empty(window: Window, observation: Observation) -> str:
    """The most common reason for a window to have no row, in words."""
    return explain_gap(_commonest(window, observation), observation.plan)


def explain_gap(gap: str, plan: Plan) -> str:
    """In words, a reason for tickers to have no row."""
    return REASONS[gap].format(plan)


def cannot_be_filled(window: Window, observation: Observation) -> bool:
    """Whether it is no failure that a window is empty: the plan has no bar, or stocks had closed.

    No plan has bars for the windows after the close.
    """
    gap = _commonest(window, observation)
    after_the_close = window.start.astimezone(EXCHANGE_TIMEZONE).time() >= EARLIEST_CLOSE
    return gap in {"plan", "too far back"} or (gap == "no trade" and after_the_close)


def _commonest(window: Window, observation: Observation) -> str:
    missing = missing_in(window, observation)
    return max(missing, key=lambda reason: len(missing[reason]))


def _account(observation: Observation, fetch: Fetch[T]) -> list[tuple[str, T]]:
    """Notes the costs and failures of a fetch; returns the answers to use, one for each symbol."""
    observation.failures = dict(fetch.failures)
    observation.requests, observation.seconds = fetch.requests, fetch.seconds
    symbols = {ticker: answer.ticker for ticker, answer in fetch.answers.items()}
    # The last one counts: a ticker that is the symbol itself.
    ordered = sorted(symbols.items(), key=lambda pair: (pair[0] == pair[1], pair[0]))
    taken = {symbol: ticker for ticker, symbol in ordered}
    accepted = []
    for ticker, symbol in symbols.items():
        if taken[symbol] != ticker:
            observation.failures[ticker] = (
                f"answered under the symbol {symbol}, as is {taken[symbol]}, which is kept: leave "
                "one of them in the watchlist"
            )
            continue
        if symbol != ticker:
            observation.answered_as[ticker] = symbol
        accepted.append((ticker, fetch.answers[ticker]))
    return accepted


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
