"""Reads the body of an answer, and refuses what is not a price.

Fields may be missing, null or of an unexpected type. A price and its time are used unchanged, or
not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from market_data_pipeline.brapi.connection import Reply, to_milliseconds
from market_data_pipeline.brapi.errors import TemporaryError, TickerError, is_error
from market_data_pipeline.market.b3_calendar import OPENING, openings
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.watchlist import TICKER
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window, midnight

# B3's smallest price, and more than any instrument costs: another price is the source's fault.
LOWEST_PRICE, HIGHEST_PRICE = 0.01, 1_000_000.0
EARLIEST_TIME = datetime(2000, 1, 1, tzinfo=UTC)
# No volume is larger, and any JSON parser reads it exactly; so is the sum of a window's bars.
HIGHEST_VOLUME = 2**53
# How long before the opening B3's call begins, in which the first price is made.
OPENING_CALL = timedelta(minutes=15)
# How far Brapi's clock may be ahead of this one.
BRAPI_AHEAD_AT_MOST = timedelta(minutes=1)
LONGEST_NAME = 500
CURRENCY = "BRL"
# The first characters of a ticker name the issuer, the number after them the kind of security.
ISSUER = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the history: its start (UTC), its close in BRL, its volume."""

    start: datetime
    close: float | None
    volume: int | None


@dataclass(frozen=True)
class History:
    """The bars of an instrument in the order of their time, each once.

    `ticker` is the symbol of the answer, `interval` how long Brapi says that the bars are (`30m`;
    empty if it does not say), `observed_at` when it was asked, `origin` which host answered.
    """

    ticker: str
    name: str | None
    short_name: str | None
    bars: tuple[Bar, ...]
    interval: str
    observed_at: datetime
    origin: str


def results_by_ticker(body: Any, tickers: tuple[str, ...]) -> dict[str, list[Mapping[str, Any]]]:
    """The results of an answer, by the ticker that was asked for; there may be several of one.

    A result names its symbol and, if that has changed, sometimes the one that was asked for. One
    under the ticker itself counts before those under another symbol. If one ticker and one result
    are left over, they belong together; more of them cannot be matched.

    Raises:
        TemporaryError: the body does not have the form of an answer.
    """
    if not isinstance(body, Mapping) or not isinstance(body.get("results"), list):
        raise TemporaryError("the answer cannot be read: it has no list of results")
    claimed: dict[str, list[Mapping[str, Any]]] = {}
    unclaimed = []
    for result in body["results"]:
        symbol = result.get("symbol") if isinstance(result, Mapping) else None
        if not isinstance(symbol, str) or not TICKER.fullmatch(symbol):
            continue
        asked_for = result.get("requestedSymbol") or symbol
        if asked_for not in tickers and symbol in tickers:
            asked_for = symbol
        if asked_for in tickers:
            claimed.setdefault(asked_for, []).append(result)
        elif asked_for == symbol:
            unclaimed.append(result)
    missing = [ticker for ticker in tickers if ticker not in claimed]
    if len(missing) == len(unclaimed) == 1:
        claimed[missing[0]] = unclaimed
    return {
        ticker: [each for each in several if each["symbol"] == ticker] or several
        for ticker, several in claimed.items()
    }


def read_quote(result: Mapping[str, Any], ticker: str, reply: Reply, window: Window) -> Quote:
    """The current quote of a ticker in one result of an answer, filed under a window.

    Raises:
        TickerError: it is of another instrument, has no usable price, time, name or currency, or
            the price is not of the window's session.
    """
    name, short_name = _names(result, ticker)
    price = result.get("regularMarketPrice")
    if price is None:
        raise TickerError("no price: the instrument is suspended or newly listed")
    if (amount := _price(price)) is None:
        raise TickerError(f"unusable price {_shown(price)}")
    updated_at = _instant(result.get("regularMarketTime"))
    if updated_at is None or updated_at >= reply.asked_at + BRAPI_AHEAD_AT_MOST:
        raise TickerError(f"unusable market time {_shown(result.get('regularMarketTime'))}")
    opening = openings().get(window.day) or OPENING
    local = updated_at.astimezone(EXCHANGE_TIMEZONE)
    first = datetime.combine(window.day, opening, EXCHANGE_TIMEZONE) - OPENING_CALL
    if not first <= local < midnight(window.day + timedelta(days=1)):
        raise TickerError(f"no price of this session: the last one is of {local:%Y-%m-%d %H:%M}")
    return Quote(
        ticker=result["symbol"],
        name=name,
        short_name=short_name,
        price=amount,
        volume=_volume(result.get("regularMarketVolume")),
        updated_at=updated_at,
        window_start=window.start,
        window_end=window.end,
        observed_at=reply.asked_at,
        source="live",
        requested_ticker=ticker,
        previous_close=_price(result.get("regularMarketPreviousClose")),
        origin=reply.origin,
    )


def read_history(result: Mapping[str, Any], ticker: str, reply: Reply) -> History:
    """The bars of a ticker in one result of an answer, sorted; a bar without a time is left out.

    Raises:
        TickerError: it is of another instrument, or has no list of bars, or no usable name or
            currency, or none of its bars can be used.
    """
    name, short_name = _names(result, ticker)
    bars = result.get("historicalDataPrice")
    if not isinstance(bars, list):
        raise TickerError("the answer has no price history")
    read, odd = list[Bar](), list[Any]()
    for bar in bars:
        start = _instant(bar.get("date")) if isinstance(bar, Mapping) else None
        if start is None:
            odd.append(bar)
            continue
        close = _price(bar.get("close"))
        read.append(Bar(start, close, _volume(bar.get("volume"))))
        if close is None and bar.get("close") is not None:
            odd.append(bar)
    if odd and all(bar.close is None for bar in read):
        raise TickerError(f"unusable bar {_shown(odd[0])}")
    interval = result.get("usedInterval")
    return History(
        ticker=result["symbol"],
        name=name,
        short_name=short_name,
        bars=tuple(sorted(dict.fromkeys(read), key=lambda bar: bar.start)),
        interval="" if interval is None else str(interval).strip().lower(),
        observed_at=reply.asked_at,
        origin=reply.origin,
    )


def read_usage_window(body: Any) -> tuple[str, datetime] | None:
    """The type and the end (UTC) of the usage window in an answer; None if it has none."""
    for name in ("usage", "usageWindow"):
        body = body.get(name) if isinstance(body, Mapping) else None
    if not isinstance(body, Mapping) or (end := _instant(body.get("end"))) is None:
        return None
    return str(body.get("type")), end


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _price(value: Any) -> float | None:
    return float(value) if _is_number(value) and LOWEST_PRICE <= value <= HIGHEST_PRICE else None


def _volume(value: Any) -> int | None:
    return int(value) if _is_number(value) and 0 <= value < HIGHEST_VOLUME else None


def _names(result: Mapping[str, Any], ticker: str) -> tuple[str | None, str | None]:
    """The long and the short name of what was asked for, which is priced in BRL."""
    if is_error(result):
        raise TickerError("Brapi answered that it is an error")
    symbol = result["symbol"]
    if symbol[ISSUER:] != ticker[ISSUER:]:
        raise TickerError(
            f"answered under another symbol, {symbol}, with another number: that is another "
            f"security, not a new name. Replace or remove {ticker} in the watchlist"
        )
    currency = result.get("currency")
    if currency not in (None, CURRENCY):
        raise TickerError(f"priced in {_shown(currency)}, not in {CURRENCY}")
    names = _text(result.get("longName")), _text(result.get("shortName"))
    if any(len(name or "") > LONGEST_NAME for name in names):
        raise TickerError(f"unusable name of more than {LONGEST_NAME} characters")
    return names


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _instant(value: Any) -> datetime | None:
    """An instant to the millisecond, from ISO 8601 or (older answers, bars) Unix seconds."""
    try:
        if isinstance(value, str):
            instant = datetime.fromisoformat(value)
        else:
            instant = datetime.fromtimestamp(value, UTC)
        if instant.tzinfo is None:
            return None
        instant = to_milliseconds(instant.astimezone(UTC))
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return instant if instant > EARLIEST_TIME else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
