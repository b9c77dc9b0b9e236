"""What Dagster's UI shows of a window: the market, numbers that it plots, and tables.

The UI shows Markdown inline if it is shorter than 1,000 characters, and behind a link otherwise. A
table is always inline, with its values as they are.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from math import isnan
from typing import Any

import dagster as dg
from upath import UPath

from market_data_pipeline.brapi.observe import Observation
from market_data_pipeline.brapi.quota import Quota
from market_data_pipeline.market.quote import Quote, by_window
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window
from market_data_pipeline.quotes.session import Instrument, Sessions, breadth
from market_data_pipeline.runs.results import (
    ROW_COUNT,
    contents,
    table,
    table_if_any,
    tell_filled,
)

# A key of the metadata: how long after the window's end its live quotes were observed, in minutes.
OBSERVED_AFTER = "observed_minutes_after_end"
MOVERS = 5
# Points of a sparkline: the previous close, and the windows since.
MOST_POINTS = 17
# A range of prices below this share of the price is not stretched to the height of the line.
SMALLEST_RANGE = 0.001
_MINUTE = timedelta(minutes=1)
_BARS = "▁▂▃▄▅▆▇█"
# The UI breaks the lines of a cell at every other space.
NO_BREAK = "\N{NO-BREAK SPACE}"


def describe_windows(
    context: dg.AssetExecutionContext,
    tickers: Sequence[str],
    observation: Observation,
    rows: Mapping[Window, Sequence[Quote]],
    quota: Quota | None,
    folder: UPath,
) -> None:
    """Adds metadata: what each window holds and lacks, and what the run asked and what it cost.

    The rows are those of the windows, of their sessions before them, and of the session before.
    """
    windows = observation.missing
    empty = {window: observation.why_empty(window) for window in windows if not rows[window]}
    ran = {
        **tell_filled(context, empty, len(windows)),
        **_describe_run(observation, quota),
        "path": dg.MetadataValue.path(str(folder)),
    }
    sessions, observed = Sessions(rows), by_window(observation.quotes)
    for window in windows:
        of_window, instruments = rows[window], sessions.at(window)
        described = {  # the UI shows it in this order
            **contents(len(of_window), "quotes", empty.get(window, "")),
            **(describe_market(window, instruments) if of_window else {}),
            **_describe_window(window, of_window, observed[window], observation, tickers),
            **ran,
        }
        if of_window:
            described["prices"] = prices_table(instruments)
        context.add_asset_metadata(described, partition_key=window.key)


def describe_market(window: Window, instruments: Sequence[Instrument]) -> dict[str, Any]:
    """How the market stood: its breadth and largest moves to read, and numbers for the plots."""
    market = breadth(instruments)
    trusted = [each for each in instruments if each.quote.trusted]
    withheld = len(instruments) - len(trusted)
    lines = [
        f"**{window.end.astimezone(EXCHANGE_TIMEZONE):%a %-d %b %Y, %H:%M}**: {_in_words(market)}"
        f"{f'; {withheld} withheld' if withheld else ''}."
    ]
    rising = [each for each in trusted if round(each.change, 2) > 0][:MOVERS]
    falling = [each for each in reversed(trusted) if round(each.change, 2) < 0][:MOVERS]
    for title, movers in (("Up", rising), ("Down", falling)):
        if movers:
            lines += ["", f"| {title} | BRL | Day | Session |", "|:--|--:|--:|:--|"]
            lines += [
                f"| {quote.ticker} | {price(quote.price)} | {percent(change)} | "
                f"{sparkline([close, *prices])} |"
                for quote, close, change, prices in movers
            ]
    return {"market": dg.MetadataValue.md("\n".join(lines)), **market}


def _describe_window(
    window: Window,
    rows: Sequence[Quote],
    observed: Sequence[Quote],
    observation: Observation,
    tickers: Sequence[str],
) -> dict[str, Any]:
    """What a window holds, and which tickers of the watchlist it lacks."""
    covered = {quote.requested_ticker for quote in rows}.intersection(tickers)
    missing = {
        why: without
        for why, each in observation.by_reason(window).items()
        if (without := set(each) - covered)
    }
    described: dict[str, Any] = {
        ROW_COUNT: len(rows),
        "quotes": len(rows),
        "coverage_percent": round(len(covered) / len(tickers) * 100, 1),
        "withheld": sum(not quote.trusted for quote in rows),
        **{f"tickers_without_row ({why})": len(each) for why, each in missing.items()},
    }
    if missing:
        reasons = (f"{why}: {observation.in_words(why)}" for why in missing)
        described["without_row"] = "; ".join(reasons)
    if live := [quote for quote in (*rows, *observed) if quote.source == "live"]:
        latest = max(quote.observed_at for quote in live) - window.end
        oldest = max(quote.observed_at - quote.updated_at for quote in live)
        described[OBSERVED_AFTER] = round(latest / _MINUTE, 1)
        described["oldest_quote_minutes"] = round(oldest / _MINUTE, 1)
    return described


def _describe_run(observation: Observation, quota: Quota | None) -> dict[str, Any]:
    """What the run asked and what it cost.

    Every window of a range has it in its metadata, so it must not grow with the range.
    """
    failures = observation.failures
    reasons = [{"ticker": ticker, "reason": why} for ticker, why in failures.items()]
    described: dict[str, Any] = {
        "failures": len(failures),
        "requests": observation.requests,
        "fetch_seconds": round(observation.seconds, 1),
    }
    if quota:
        described["quota_left"] = quota.left
        # The day that Brapi counts from, which begins at midnight UTC.
        described["quota"] = f"{quota.left:,} of {quota.limit:,} until {quota.until:%-d %b}"
    return described | table_if_any("failed", reasons)


def prices_table(instruments: Sequence[Instrument]) -> dg.TableMetadataValue:
    """Every instrument in the given order, without columns that are empty."""
    records = [
        {
            "ticker": quote.ticker,
            "price": price(quote.price),
            "day": percent(change),
            "session": sparkline([close, *prices]),
            "volume": volume(quote.volume),
            "time": clock_time(quote),
            "decision": quote.decision.replace("clear", ""),
            "name": (quote.short_name or "").replace(" ", NO_BREAK),
        }
        for quote, close, change, prices in instruments
    ]
    filled = [name for name in records[0] if any(record[name] for record in records)]
    return table([{name: record[name] for name in filled} for record in records])


def sparkline(prices: Sequence[float]) -> str:
    """A line of at most `MOST_POINTS` characters; `·` is a price that is not known.

    Of more prices, the last of each stretch is shown.
    """
    step = -(-len(prices) // MOST_POINTS) or 1
    shown = heights(prices[::-step][::-1])
    return "".join("·" if isnan(each) else _BARS[round(each * (len(_BARS) - 1))] for each in shown)


def heights(prices: Sequence[float]) -> list[float]:
    """The prices as heights of a line, from 0 for the lowest to 1 for the highest; NaN stays.

    A range below `SMALLEST_RANGE` is not stretched, so that a rounding does not look like a move.
    """
    known = [each for each in prices if not isnan(each)]
    low, high = min(known, default=1.0), max(known, default=1.0)
    spare = max(0.0, SMALLEST_RANGE * high - (high - low))
    # A flat line is in the middle of the height.
    return [(each - low + spare * 4 / 7) / (high - low + spare) for each in prices]


def price(value: float) -> str:
    """In BRL: `1,234.50`."""
    return f"{value:,.2f}"


def percent(value: float) -> str:
    """With its sign: `+1.24%`; empty if it is not known."""
    return "" if isnan(value) else f"{round(value, 2) + 0:+.2f}%"


def volume(value: int | None) -> str:
    """`36.6 M`; empty if it is not known."""
    if value is None:
        return ""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.99995 * size:  # 999,960 is 1.0 M
            return f"{value / size:.1f}{NO_BREAK}{unit}"
    return str(value)


def clock_time(quote: Quote) -> str:
    """When the market made a price, in São Paulo; with the date if that is not the session's."""
    local = quote.updated_at.astimezone(EXCHANGE_TIMEZONE)
    if quote.source != "live":
        return f"by{NO_BREAK}{local:%H:%M}"  # a bar does not say when its last trade was
    same_day = local.date() == quote.window.day
    return f"{local:%H:%M:%S}" if same_day else f"{local:%-d %b %H:%M}".replace(" ", NO_BREAK)


def _in_words(market: dict[str, Any]) -> str:
    if not market:
        return "no previous close is known, because the previous session is not stored"
    unchanged = f", {market['unchanged']} unchanged" if market["unchanged"] else ""
    return (
        f"{market['advancers']} up, {market['decliners']} down{unchanged}, "
        f"median {percent(market['median_change_percent'])}"
    )
