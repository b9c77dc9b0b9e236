"""The report on a session as an HTML page: one file, without scripts, that works offline."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isnan
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from market_data_pipeline.market.price_guard import explain
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window
from market_data_pipeline.quotes.metadata import clock_time, heights, percent, price, volume
from market_data_pipeline.quotes.session import Instrument, median_changes
from market_data_pipeline.storage.official_close import Closes


def page(
    windows: Sequence[Window],
    rows: Sequence[Quote],
    instruments: Sequence[Instrument],
    described: Mapping[str, Any],
    official: Closes,
) -> str:
    """The whole page, in English; times are in São Paulo.

    Args:
        windows: those of the session that have ended.
        rows: what is stored of them.
        instruments: at the end of the last of these windows.
        described: what the UI shows of the session.
        official: B3's own closes, by ticker; empty if they are not stored.
    """
    medians = [0.0, *median_changes(instruments)]
    known = [each for each in medians if not isnan(each)]
    return _PAGES.get_template("session_report.html.jinja").render(
        day=windows[-1].day,
        first=min(quote.window_start for quote in rows),
        last=windows[-1].end,
        live=sum(quote.source == "live" for quote in rows),
        bars=sum(quote.source != "live" for quote in rows),
        withheld=[quote for quote in rows if not quote.trusted],
        instruments=instruments,
        median_line=[1 + each / 100 for each in medians],
        median_range=f"{percent(min(known))} to {percent(max(known))}",
        described=described,
        official=official,
    )


def local_time(instant: datetime) -> str:
    """The time in São Paulo: `17:30`."""
    return f"{instant.astimezone(EXCHANGE_TIMEZONE):%H:%M}"


def _chart(line: Sequence[float], width: int, height: int) -> Markup:
    """A line since its first value, which is the dashed one; it has a gap where one is missing."""
    drawn = [height * (1 - each) for each in heights(line)]
    step, path, draw = width / max(1, len(drawn) - 1), "", "M"
    for number, each in enumerate(drawn):
        if not isnan(each):
            # A single point is drawn by its round line caps.
            path += f"{draw}{number * step:.1f},{each:.1f}{'h0' * (draw == 'M')}"
        draw = "M" if isnan(each) else "L"
    base = "" if isnan(drawn[0]) else f"M0,{drawn[0]:.1f}H{width}"
    return Markup(
        '<svg width="{0}" height="{1}" viewBox="0 0 {0} {1}" preserveAspectRatio="none" '
        'aria-hidden="true"><path class="base" d="{2}"/><path class="course" d="{3}"/></svg>'
    ).format(width, height, base, path)


def _direction(change: float) -> str:
    """The class of what rose, fell, or did neither."""
    return "up" if round(change, 2) > 0 else "down" if round(change, 2) < 0 else "soft"


_PAGES = Environment(
    loader=PackageLoader("market_data_pipeline.report", ""),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.filters |= {
    "chart": _chart,
    "clock_time": clock_time,
    "direction": _direction,
    "explain": explain,
    "local_time": local_time,
    "percent": percent,
    "price": price,
    "volume": volume,
}
