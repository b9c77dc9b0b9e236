"""From Brapi's answers to quotes filed under their windows, with an account of what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from market_data_pipeline.brapi.answers import Bar, History, MarketQuote
from market_data_pipeline.brapi.bars import Gap, bars_of_windows
from market_data_pipeline.brapi.client import Answer, BrapiClient, Fetch, Progress
from market_data_pipeline.brapi.errors import PlanError
from market_data_pipeline.quote import Quote
from market_data_pipeline.windows import EXCHANGE_TIMEZONE, TradingWindows, Window

T = TypeVar("T", MarketQuote, History)


@dataclass
class Collection:
    """The quotes of some windows, and why there are no more.

    `failures` says for each ticker that Brapi gave nothing for why; `gaps` says for each window
    which tickers have no row in it for another reason; `renamed` maps the symbols of the watchlist
    that are not in use any more to the present ones.
    """

    windows: Sequence[Window]
    quotes: list[Quote] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    gaps: dict[Window, dict[str, Gap]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    seconds: float = 0.0


def collect_live(
    client: BrapiClient,
    tickers: Sequence[str],
    window: Window,
    trading_windows: TradingWindows,
    on_progress: Callable[[Progress], None],
) -> Collection:
    """The current quotes, filed under the live window.

    A ticker that was asked for, or traded, when the window was not live any more is a failure: its
    quote belongs to another window.

    Raises:
        RunError: the token, the plan or the quota stops everything.
    """
    collection = Collection([window])
    fetch = client.quotes(tickers, on_progress)
    over = _live_until(window, trading_windows)
    for ticker, answer in _accepted(collection, fetch).items():
        if max(answer.observed_at, answer.value.updated_at) < over:
            collection.quotes.append(_live_quote(ticker, answer, window))
        else:
            collection.failures[ticker] = "answered too late: the window was not live any more"
    return collection


def collect_history(
    client: BrapiClient,
    tickers: Sequence[str],
    windows: Sequence[Window],
    trading_windows: TradingWindows,
    now: datetime,
    on_progress: Callable[[Progress], None],
) -> Collection:
    """What the market did in windows that have passed, from the bars of the price history.

    Nothing is asked for windows that can have no bar. If the token turns out to have another plan
    than was thought, the bars are those of that plan.

    Raises:
        PlanError: the plan does not reach back to the first window, or the token has another one.
        RunError: the token, the plan or the quota stops everything.
    """
    collection = Collection(windows)
    minutes = int(trading_windows.interval.total_seconds() // 60)
    interval = client.plan.bar_interval(minutes)
    settled = now - timedelta(minutes=client.plan.delay_minutes)
    served: list[Window] = []
    for window in windows:
        if gap := _gap_beforehand(window, interval, settled, trading_windows):
            collection.gaps[window] = dict.fromkeys(tickers, gap)
        else:
            served.append(window)
    if not served:
        return collection
    days = (min(window.day for window in served), max(window.day for window in served))
    today = now.astimezone(EXCHANGE_TIMEZONE).date()
    try:
        fetch = client.history(tickers, days, today, minutes, on_progress)
    except PlanError:
        if not client.mend_plan():
            raise
        return collect_history(client, tickers, windows, trading_windows, now, on_progress)
    for ticker, answer in _accepted(collection, fetch).items():
        for window, bar in bars_of_windows(answer.value, served, interval).items():
            if isinstance(bar, Bar):
                collection.quotes.append(_past_quote(ticker, answer, window, bar, interval))
            else:
                collection.gaps.setdefault(window, {})[ticker] = bar
    return collection


def _live_until(window: Window, trading_windows: TradingWindows) -> datetime:
    """When the next window of the session ends, or the next session begins."""
    following = trading_windows.after(window)
    return following.end if following.start == window.end else following.start


def _gap_beforehand(
    window: Window, interval: str, settled: datetime, trading_windows: TradingWindows
) -> Gap | None:
    """Why no paper can have a bar for the window, None if they can."""
    if interval == "1d" and not trading_windows.is_last(window):
        return "plan"
    return "too early" if window.end > settled else None


def _accepted(collection: Collection, fetch: Fetch[T]) -> Mapping[str, Answer[T]]:
    """Notes the account of a fetch; returns the answers whose symbols are one paper's alone."""
    collection.failures = dict(fetch.failures)
    collection.requests, collection.seconds = fetch.requests, fetch.seconds
    answered = Counter(answer.value.symbol for answer in fetch.answers.values())
    accepted = {}
    for ticker, answer in fetch.answers.items():
        symbol = answer.value.symbol
        if symbol != ticker and answered[symbol] > 1:
            collection.failures[ticker] = (
                f"answered as {symbol}, which the watchlist holds already: remove {ticker}"
            )
            continue
        if symbol != ticker:
            collection.renamed[ticker] = symbol
        accepted[ticker] = answer
    return accepted


def _live_quote(ticker: str, answer: Answer[MarketQuote], window: Window) -> Quote:
    quote = answer.value
    return Quote(
        ticker=quote.symbol,
        name=quote.name,
        short_name=quote.short_name,
        price=quote.price,
        volume=quote.volume,
        updated_at=quote.updated_at,
        window_start=window.start,
        window_end=window.end,
        observed_at=answer.observed_at,
        source="live",
        requested_ticker=ticker,
    )


def _past_quote(
    ticker: str, answer: Answer[History], window: Window, bar: Bar, interval: str
) -> Quote:
    assert bar.close is not None
    return Quote(
        ticker=answer.value.symbol,
        name=answer.value.name,
        short_name=answer.value.short_name,
        price=bar.close,
        volume=bar.volume,
        # A bar does not say when its last trade was, only that it was not after its end.
        updated_at=window.end,
        window_start=window.start,
        window_end=window.end,
        observed_at=answer.observed_at,
        source="daily" if interval == "1d" else "intraday",
        requested_ticker=ticker,
    )
