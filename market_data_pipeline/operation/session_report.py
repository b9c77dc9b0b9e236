"""The report on a session: a page to forward, and the same in Dagster's UI.

It has a group of its own, as its partitions are sessions: *Materialize all* of the group of the
three assets must keep offering windows.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby
from math import isnan
from statistics import median
from typing import Any

import dagster as dg
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from market_data_pipeline.market import clock
from market_data_pipeline.market.b3_calendar import sessions_back
from market_data_pipeline.market.price_guard import explain
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window, duration, sessions_from
from market_data_pipeline.publication.asset import SECONDS_AFTER
from market_data_pipeline.publication.checks import PUBLISHED
from market_data_pipeline.quotes.metadata import (
    clock_time,
    describe_market,
    heights,
    percent,
    price,
    prices_table,
    volume,
)
from market_data_pipeline.quotes.session import Instrument, Sessions, median_changes
from market_data_pipeline.runs.common import (
    ONE_RUN_A_RANGE,
    OWNERS,
    PUBLICATION,
    QUOTES,
    SESSION_REPORT,
    WINDOWS,
    failing_clearly,
    partitions_of,
)
from market_data_pipeline.runs.results import some
from market_data_pipeline.runs.run_history import materializations, value_of
from market_data_pipeline.storage.official_close import Closes, official_closes
from market_data_pipeline.storage.quote_store import QuoteStore

# Today's report is on the windows that have ended.
_OF_TODAY = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)


@dg.asset(
    key=SESSION_REPORT,
    deps=[dg.AssetDep(QUOTES, partition_mapping=_OF_TODAY)],
    partitions_def=sessions_from(WINDOWS.first_day),
    backfill_policy=ONE_RUN_A_RANGE,
    output_required=False,  # a session without prices has no report
    group_name="reports",
    owners=OWNERS,
    kinds={"html"},
)
def session_report(
    context: dg.AssetExecutionContext, quote_store: dg.ResourceParam[QuoteStore]
) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """How a session went.

    The day's prices with a sparkline for each instrument, which windows have prices, which prices
    were withheld, the quota, and how soon the prices were on the topic. `report` is the path of the
    same as an HTML page.
    """
    for key in partitions_of(context):
        day, reading = date.fromisoformat(key), quote_store.reading()
        windows = [each for each in WINDOWS.of_session(day) if each.end <= clock.utc_now()]
        if not windows:
            raise dg.Failure(f"No window has ended on {day}.", allow_retries=False)
        with failing_clearly():
            stored = reading.sessions(sessions_back(day, 1), day)
            if reading.damaged:
                context.log.warning(f"Left out: {some(reading.damaged_files(), '; ')}.")
            rows = [quote for window in windows for quote in stored.get(window, ())]
            if not rows:
                context.log.warning(
                    f"No prices of {day} are stored, so there is nothing to report."
                )
                continue
            instruments = Sessions(stored).until(windows[-1])
            shown = _describe(context.instance, windows, rows, instruments)
            path = quote_store.folder_of(SESSION_REPORT) / f"{day}.html"
            page = _page(windows, rows, instruments, shown, official_closes(quote_store, day))
            quote_store.write({path: page.encode()})
        described = {
            "market": shown.pop("market"),
            "report": dg.MetadataValue.path(str(path)),
            **shown,
            "prices": prices_table(instruments),
        }
        context.log_event(
            dg.AssetMaterialization(SESSION_REPORT, partition=key, metadata=described)
        )
    yield from ()  # the sessions with prices are materialized above


session_report_job = dg.define_asset_job(
    "session_report_job", [SESSION_REPORT], description="The report on a session."
)


@dg.schedule(
    job=session_report_job,
    cron_schedule="0 19,23 * * 1-5",
    execution_timezone=EXCHANGE_TIMEZONE.key,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Materializes `session_report` at 19:00 after each session, and at 23:00, when B3 "
    "has mostly published its own closes.",
)
def every_session(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """A run for the session of the tick's day; by then its last window has its closing prices."""
    day = context.scheduled_execution_time.astimezone(EXCHANGE_TIMEZONE).date()
    if not WINDOWS.of_session(day):
        return dg.SkipReason(f"B3 has no session on {day:%a %d %b}.")
    return dg.RunRequest(partition_key=f"{day}")


def _describe(
    instance: dg.DagsterInstance,
    windows: Sequence[Window],
    rows: Sequence[Quote],
    instruments: Sequence[Instrument],
) -> dict[str, Any]:
    starts = {quote.window_start for quote in rows}
    with_prices = [window for window in windows if window.start in starts]
    asked = materializations(instance, QUOTES, windows)
    quotas = [value_of(event, "quota") for window in windows for event in asked[window][:1]]
    seconds = _seconds_to_topic(instance, windows)
    return {
        **describe_market(windows[-1], instruments),
        "windows": _coverage(windows, with_prices),
        "on_the_topic": _to_topic(seconds),
        "quota": next(filter(None, reversed(quotas)), "not known"),
        "windows_with_prices": len(with_prices),
        "withheld": sum(not quote.trusted for quote in rows),
        **({"median_seconds_after_window_end": round(median(seconds), 1)} if seconds else {}),
    }


def _coverage(windows: Sequence[Window], with_prices: Sequence[Window]) -> str:
    text = f"{len(with_prices)} of {len(windows)}"
    gaps = [[*gap] for there, gap in groupby(windows, with_prices.__contains__) if not there]
    spans = [f"{_local_time(gap[0].start)} to {_local_time(gap[-1].end)}" for gap in gaps]
    return f"{text}, none for {', '.join(spans)}" if spans else text


def _seconds_to_topic(instance: dg.DagsterInstance, windows: Sequence[Window]) -> list[float]:
    """From the end of each published window to its publication."""
    published = [
        [value_of(event, SECONDS_AFTER) for event in events if value_of(event, PUBLISHED)]
        for events in materializations(instance, PUBLICATION, windows).values()
    ]
    return [min(seconds) for seconds in published if seconds]


def _to_topic(seconds: Sequence[float]) -> str:
    if not seconds:
        return "no window was published"
    middle, most = (duration(timedelta(seconds=each)) for each in (median(seconds), max(seconds)))
    count = "1 window" if len(seconds) == 1 else f"{len(seconds)} windows"
    return f"{count}, median {middle} after the end, at most {most}"


def _page(
    windows: Sequence[Window],
    rows: Sequence[Quote],
    instruments: Sequence[Instrument],
    described: Mapping[str, Any],
    official: Closes,
) -> str:
    """The report as HTML: one file, without scripts, that works offline; times are in São Paulo."""
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


def _local_time(instant: datetime) -> str:
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
    loader=PackageLoader("market_data_pipeline.operation", ""),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.filters |= {
    "chart": _chart,
    "clock_time": clock_time,
    "direction": _direction,
    "explain": explain,
    "local_time": _local_time,
    "percent": percent,
    "price": price,
    "volume": volume,
}
