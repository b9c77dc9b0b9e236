"""What Dagster's UI shows of the market: a window's largest moves, a sparkline for each instrument.

The UI shows Markdown inline if it is shorter than 1,000 characters, and behind a link otherwise. A
table is always inline, with its values as they are.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window
from market_data_pipeline.quotes.session import Breadth, Course, breadth
from market_data_pipeline.runs.tables import table

MOVERS = 5
# Points of a sparkline: the previous close, and the windows since.
MOST_POINTS = 17
_BARS = "▁▂▃▄▅▆▇█"
_GAP = "·"
# The UI breaks the lines of a cell at every other space.
NO_BREAK = "\N{NO-BREAK SPACE}"


def describe_market(window: Window, courses: Sequence[Course]) -> dict[str, Any]:
    """What the UI shows first for a window: the picture, and the market's numbers for the plots."""
    if not courses:
        return {}
    described: dict[str, Any] = {"market": picture(window, courses)}
    if market := breadth(courses):
        described |= {
            "advancers": market.advancers,
            "decliners": market.decliners,
            "median_change_percent": market.median_change,
        }
    return described


def sparkline(prices: Sequence[float | None]) -> str:
    """A line of at most `MOST_POINTS` characters, scaled from the lowest price to the highest.

    If there are more prices, the last of each stretch is shown; `·` is a missing price.
    """
    step = -(-len(prices) // MOST_POINTS) or 1
    shown = prices[::-step][::-1]
    known = [price for price in shown if price is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    middle = len(_BARS) // 2
    return "".join(
        _GAP
        if price is None
        else _BARS[round((price - low) / span * (len(_BARS) - 1)) if span else middle]
        for price in shown
    )


def line(course: Course) -> str:
    """The sparkline of an instrument's session so far, from the previous close on."""
    before = [course.previous_close] if course.previous_close else []
    return sparkline([*before, *course.prices])


def picture(window: Window, courses: Sequence[Course]) -> dg.MarkdownMetadataValue:
    """The market at the end of a window: its breadth, and the largest moves."""
    known = [each for each in courses if each.change is not None and each.quote.trusted]
    withheld = sum(not each.quote.trusted for each in courses)
    rising = [each for each in known if (each.change or 0) > 0][:MOVERS]
    falling = [each for each in reversed(known) if (each.change or 0) < 0][:MOVERS]
    lines = [
        f"**{window.end.astimezone(EXCHANGE_TIMEZONE):%a %-d %b %Y, %H:%M}**: "
        f"{in_words(breadth(courses))}{f'; {withheld} withheld' if withheld else ''}."
    ]
    for title, movers in (("Up", rising), ("Down", falling)):
        if movers:
            lines += ["", f"| {title} | BRL | Day | Session |", "|:--|--:|--:|:--|"]
            lines += [
                f"| {_plain(each.quote.ticker)} | {price(each.quote.price)} | "
                f"{percent(each.change)} | {line(each)} |"
                for each in movers
            ]
    return dg.MetadataValue.md("\n".join(lines))


def in_words(market: Breadth | None) -> str:
    """`31 up, 17 down, 2 unchanged, median +0.31%`."""
    if market is None:
        return "no previous close is known, because the previous session is not stored"
    unchanged = f", {market.unchanged} unchanged" if market.unchanged else ""
    return (
        f"{market.advancers} up, {market.decliners} down{unchanged}, "
        f"median {percent(market.median_change)}"
    )


def prices_table(courses: Sequence[Course]) -> dg.TableMetadataValue:
    """Every instrument, sorted by its move since the previous close; times are in São Paulo."""
    records = [
        {
            "ticker": each.quote.ticker,
            "price": price(each.quote.price),
            "day": percent(each.change),
            "session": line(each),
            "volume": volume(each.quote.volume),
            "time": clock_time(each.quote),
            "decision": each.quote.decision.replace("clear", ""),
            "name": (each.quote.short_name or "").replace(" ", NO_BREAK),
        }
        for each in courses
    ]
    told = [name for name in records[0] if any(record[name] for record in records)]
    return table([{name: record[name] for name in told} for record in records])


def price(value: float) -> str:
    """In BRL: `1,234.50`."""
    return f"{value:,.2f}"


def percent(value: float | None) -> str:
    """With its sign: `+1.24%`; empty if it is not known."""
    return "" if value is None else f"{round(value, 2) + 0:+.2f}%"


def volume(value: int | None) -> str:
    """`36.6 M`; empty if it is not known."""
    if value is None:
        return ""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{NO_BREAK}{unit}"
    return str(value)


def clock_time(quote: Quote) -> str:
    """When the market made a price, in São Paulo; with the date if that is not the session's."""
    local = quote.updated_at.astimezone(EXCHANGE_TIMEZONE)
    if quote.source != "live":
        return f"by{NO_BREAK}{local:%H:%M}"  # a bar does not say when its last trade was
    same_day = local.date() == quote.window_start.astimezone(EXCHANGE_TIMEZONE).date()
    return f"{local:%H:%M:%S}" if same_day else f"{local:%-d %b %H:%M}".replace(" ", NO_BREAK)


def _plain(text: str) -> str:
    """Text that Markdown shows unchanged within a table cell, cut to 12 characters."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>()#+-.!|~" else char for char in text[:12])
