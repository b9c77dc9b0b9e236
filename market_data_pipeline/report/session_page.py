"""The report on a session as an HTML page: one file, without scripts, that works offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib import resources
from itertools import groupby
from statistics import median

from market_data_pipeline.market.price_guard import explain
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window
from market_data_pipeline.quotes.pictures import clock_time, percent, price, volume
from market_data_pipeline.quotes.session import Course, SessionSoFar, breadth

# The classes of a column's cells; `wide` columns do not fit on a phone.
_COLUMNS = {
    "Last": "number",
    "Change": "number change",
    "Low to high": "number wide",
    "Volume": "number wide",
    "Time": "number wide",
}


@dataclass(frozen=True)
class Facts:
    """What is known of a session beyond its prices."""

    windows: Sequence[Window]
    """All of the session."""
    rows: list[Quote]
    """All its stored rows."""
    quota: str
    """What was left of Brapi's quota after its last run; empty if it is not known."""
    seconds_to_topic: list[float]
    """From the end of each published window to its publication, in ascending order."""

    @property
    def with_prices(self) -> list[Window]:
        """The windows that have a price."""
        starts = {quote.window_start for quote in self.rows}
        return [window for window in self.windows if window.start in starts]

    @property
    def withheld(self) -> list[Quote]:
        """The prices that were not published because they moved too far."""
        return [quote for quote in self.rows if not quote.trusted]

    def coverage(self) -> str:
        """`14 of 16, none for 10:00 to 11:00`."""
        there = set(self.with_prices)
        gaps = [
            list(group) for lacks, group in groupby(self.windows, lambda w: w not in there) if lacks
        ]
        spans = [f"{_local(gap[0].start)} to {_local(gap[-1].end)}" for gap in gaps]
        text = f"{len(there)} of {len(self.windows)}"
        return f"{text}, none for {', '.join(spans)}" if spans else text

    def to_topic(self) -> str:
        """`10 windows, median 27 s after the end, at most 31 s`."""
        seconds = self.seconds_to_topic
        if not seconds:
            return "no window was published"
        return (
            f"{len(seconds)} {'window' if len(seconds) == 1 else 'windows'}, "
            f"median {_span(median(seconds))} after the end, at most {_span(seconds[-1])}"
        )


def page(session: SessionSoFar, facts: Facts) -> str:
    """The whole page, in English; times are in São Paulo."""
    courses, day = session.courses(), f"{session.day:%A, %-d %B %Y}"
    made_up = any(each.quote.made_up for each in courses)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>B3 session of {day}</title>
<style>
{_style()}</style>
</head>
<body>
<h1>B3 session of {day}</h1>
<p class="soft">{len(courses)} instruments, {_local(session.windows[0].start)} to \
{_local(session.windows[-1].end)} in São Paulo. Prices in BRL.</p>
{'<p class="notice">These prices were made up by a sandbox, not by a market.</p>' * made_up}
{_market(session, courses)}
{_tiles(facts)}
{_withheld(facts.withheld)}
{_instruments(courses)}
</body>
</html>
"""


def _market(session: SessionSoFar, courses: Sequence[Course]) -> str:
    market = breadth(courses)
    if market is None:
        return (
            '<p class="soft">The previous session is not stored, so neither the previous close nor '
            "the change is known.</p>"
        )
    parts = (("up", market.advancers), ("", market.unchanged), ("down", market.decliners))
    line = [0.0, *_medians(courses)]
    known = [value for value in line if value is not None]
    return f"""<div class="breadth">\
{"".join(f'<i class="{kind}" style="flex:{count}"></i>' for kind, count in parts if count)}</div>
<p><b class="up">{market.advancers} up</b>, <b class="down">{market.decliners} down</b>, \
{market.unchanged} unchanged. Median change <b>{percent(market.median_change)}</b>.</p>
<h2>Median change since the previous close</h2>
<div class="{_kind(market.median_change)}">{_svg(line, 0.0, 600, 120, "market")}</div>
<p class="soft axis"><span>previous close</span>\
<span>{percent(min(known))} to {percent(max(known))}</span>\
<span>{_local(session.windows[-1].end)}</span></p>"""


def _medians(courses: Sequence[Course]) -> list[float | None]:
    """The median change at the end of each window, in percent."""
    medians: list[float | None] = []
    for prices in zip(*(each.prices for each in courses), strict=True):
        changes = [
            (price / course.previous_close - 1) * 100
            for course, price in zip(courses, prices, strict=True)
            if price and course.previous_close
        ]
        medians.append(median(changes) if changes else None)
    return medians


def _tiles(facts: Facts) -> str:
    live = sum(quote.source == "live" for quote in facts.rows)
    tiles = {
        "Windows with prices": facts.coverage(),
        "On the topic": facts.to_topic(),
        "Prices": f"{live:,} live, {len(facts.rows) - live:,} from the price history",
        "Withheld prices": str(len(facts.withheld)),
        "Brapi quota": facts.quota,
    }
    cells = (
        f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in tiles.items() if text
    )
    return f"<dl>{''.join(cells)}</dl>"


def _withheld(quotes: Sequence[Quote]) -> str:
    if not quotes:
        return ""
    lines = (f"<p>{_local(each.window_end)} {escape(explain(each))}</p>" for each in quotes)
    return (
        "<h2>Withheld prices</h2>\n"
        '<p class="soft">Stored but not published: they moved too far from the last trusted '
        "price.</p>\n"
        f"{''.join(lines)}"
    )


def _instruments(courses: Sequence[Course]) -> str:
    rows = [_cells(course) for course in courses]
    # A column that is empty for every instrument, such as the volume of bars, is left out.
    told = [name for name in rows[0] if any(row[name] for row in rows)]
    titles = "".join(f'<th class="{_COLUMNS.get(name, "")}">{name}</th>' for name in told)
    known = breadth(courses) is not None
    ordered = "Sorted by the change since the previous close (the dashed line)."
    lines = []
    for course, row in zip(courses, rows, strict=True):
        kinds = {"Session": _kind(course.change), "Change": _kind(course.change)}
        cells = (
            f'<td class="{_COLUMNS.get(name, "")} {kinds.get(name, "")}">{row[name]}</td>'
            for name in told
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"""<h2>Instruments</h2>
<p class="soft">{ordered if known else ""}
Low and high are the lowest and highest price of a window. Volume is in shares or units.</p>
<table>
<thead><tr>{titles}</tr></thead>
<tbody>
{chr(10).join(lines)}
</tbody>
</table>"""


def _cells(course: Course) -> dict[str, str]:
    quote, prices = course.quote, [each for each in course.prices if each is not None]
    line = [course.previous_close, *course.prices] if course.previous_close else course.prices
    tag = "" if quote.decision == "clear" else f' <span class="tag">{quote.decision}</span>'
    name = escape(quote.short_name or "")
    return {
        "Instrument": f"<b>{escape(quote.ticker)}{tag}</b><small>{name}</small>",
        "Session": _svg(line, course.previous_close, 120, 28, ""),
        "Last": price(quote.price),
        "Change": percent(course.change),
        "Low to high": f"{price(min(prices))} to {price(max(prices))}" if prices else "",
        "Volume": volume(quote.volume),
        "Time": clock_time(quote),
    }


def _svg(
    line: Sequence[float | None], base: float | None, width: int, height: int, kind: str
) -> str:
    """A line over the whole width; it has a gap where a value is missing."""
    known = [value for value in (*line, base) if value is not None]
    if not known:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    step = width / max(1, len(line) - 1)

    def y(value: float) -> str:
        return f"{height - (value - low) / span * height:.1f}"

    numbered = groupby(enumerate(line), key=lambda point: point[1] is not None)
    stretches = [list(points) for there, points in numbered if there]
    path = " ".join(
        # A single point is drawn by its round line caps.
        "M"
        + " L".join(f"{at * step:.1f},{y(value)}" for at, value in points if value is not None)
        + ("h0" if len(points) == 1 else "")
        for points in stretches
    )
    dashes = (
        ""
        if base is None
        else f'<line class="base" x1="0" x2="{width}" y1="{y(base)}" y2="{y(base)}"/>'
    )
    return (
        f'<svg class="{kind}" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'preserveAspectRatio="none" aria-hidden="true">{dashes}'
        f'<path class="course" d="{path}"/></svg>'
    )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"


def _kind(change: float | None) -> str:
    rounded = round(change or 0, 2)
    return "up" if rounded > 0 else "down" if rounded < 0 else "soft"


def _local(instant: datetime) -> str:
    return f"{instant.astimezone(EXCHANGE_TIMEZONE):%H:%M}"


def _style() -> str:
    return resources.files(__package__).joinpath("session_report.css").read_text("utf-8")
