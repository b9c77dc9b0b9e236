"""The report on a session: a page to forward, and the same in Dagster's UI.

The asset is external: its partitions are sessions, and *Materialize all* must keep offering the
windows of the three assets. A job writes it.
"""

from collections.abc import Sequence
from datetime import date, datetime
from statistics import median
from typing import Any

import dagster as dg
from pydantic import Field

from market_data_pipeline.market import b3_calendar, clock
from market_data_pipeline.market.quote import Quote, by_window
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window
from market_data_pipeline.publication.asset import SECONDS_AFTER
from market_data_pipeline.publication.publications import PUBLISHED
from market_data_pipeline.quotes.pictures import describe_market, prices_table
from market_data_pipeline.quotes.session import SessionSoFar, follow, previous_closes
from market_data_pipeline.report.session_page import Facts, page
from market_data_pipeline.runs.asset_keys import PREFIX, PUBLICATION, QUOTES, SESSION_REPORT
from market_data_pipeline.runs.common import GROUP, OWNERS, WINDOWS
from market_data_pipeline.runs.run_history import materializations, told
from market_data_pipeline.storage.quote_store import QuoteStore

SESSIONS = dg.TimeWindowPartitionsDefinition(
    start=f"{WINDOWS.first_day}",
    fmt="%Y-%m-%d",
    cron_schedule="0 0 * * 1-5",
    timezone=EXCHANGE_TIMEZONE.key,
    end_offset=1,  # today's session is included; on a day without one, the next
    exclusions=[
        datetime(day.year, day.month, day.day)
        for day, opening in b3_calendar.openings().items()
        if opening is None and day >= WINDOWS.first_day
    ],
)

session_report_asset = dg.AssetSpec(
    SESSION_REPORT,
    deps=[QUOTES],
    description="How a session went: the day's prices with a sparkline for each instrument, which "
    "windows have prices, which prices were withheld, the quota, and how soon the prices were on "
    "the topic. `report` is the path of the same as an HTML page. The job `session_report` writes "
    "it ten minutes after the session, and again whenever its quotes change.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"html"},
    partitions_def=SESSIONS,
)


class ReportConfig(dg.Config):
    """Which sessions are reported."""

    sessions: list[str] = Field(
        default=[],
        description="Days such as 2026-11-23; by default the latest session, even if not over.",
    )


@dg.op(name="_".join(filter(None, [PREFIX, "report"])))
def report(context: dg.OpExecutionContext, config: ReportConfig, quote_store: QuoteStore) -> None:
    """Writes the page of each session that has quotes, and records it for the UI."""
    for day in [_day(text) for text in config.sessions] or [_latest()]:
        ended = clock.utc_now()
        windows = [window for window in WINDOWS.of_session(day) if window.end <= ended]
        if not windows:
            raise dg.Failure(
                f"No window has ended on {day}: choose a day with a session, from "
                f"PARTITIONS_START ({WINDOWS.first_day}) on.",
                allow_retries=False,
            )
        session, rows = _read(quote_store, windows)
        if not rows:
            context.log.warning(f"{day}: no prices are stored, so there is nothing to report.")
            continue
        facts = _facts(context.instance, windows, rows)
        path = quote_store.folder_of(SESSION_REPORT) / f"{day}.html"
        quote_store.write({path: page(session, facts).encode()})
        described = _describe(session, facts, str(path))
        context.log_event(
            dg.AssetMaterialization(SESSION_REPORT, partition=f"{day}", metadata=described)
        )
        context.log.info(f"{day}: {path}")


@dg.job(
    name="session_report",
    description="Writes the report on the latest session, or on those given. A sensor launches it "
    "after the last window of a session, and whenever quotes of a past session have changed.",
)
def session_report() -> None:
    """The op alone."""
    report()


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise dg.Failure(
            f"sessions: {text!r} is not a day such as 2026-11-23.", allow_retries=False
        ) from None


def _latest() -> date:
    """The day of the last session of which a window has ended."""
    window = WINDOWS.last_ended(clock.utc_now())
    if window is None:
        raise dg.Failure("No window has ended yet.", allow_retries=False)
    return window.day


def _read(store: QuoteStore, windows: Sequence[Window]) -> tuple[SessionSoFar, list[Quote]]:
    grouped = by_window(store.rows_of([window.key for window in windows]))
    rows = [quote for window in windows for quote in grouped[window]]
    tickers = {quote.ticker for quote in rows if not quote.previous_close}
    closes = previous_closes(store, windows[0].day, tickers)
    *_, (_, session) = follow(windows, rows, closes)
    return session, rows


def _facts(instance: dg.DagsterInstance, windows: Sequence[Window], rows: list[Quote]) -> Facts:
    asked = materializations(instance, QUOTES, windows)
    quotas = [told(event, "quota") for window in windows for event in asked[window][:1]]
    seconds = [
        [told(event, SECONDS_AFTER) for event in events if told(event, PUBLISHED)]
        for events in materializations(instance, PUBLICATION, windows).values()
    ]
    return Facts(
        windows=windows,
        rows=rows,
        quota=next(filter(None, reversed(quotas)), ""),
        seconds_to_topic=sorted(min(each) for each in seconds if each),
    )


def _describe(session: SessionSoFar, facts: Facts, path: str) -> dict[str, Any]:
    courses, seconds = session.courses(), facts.seconds_to_topic
    market = describe_market(session.windows[-1], courses)
    described: dict[str, Any] = {
        "market": market["market"],
        "report": dg.MetadataValue.path(path),
        "windows": facts.coverage(),
        "on_the_topic": facts.to_topic(),
        "quota": facts.quota or "not known",
        **market,
        "windows_with_prices": len(facts.with_prices),
        "withheld": len(facts.withheld),
    }
    if seconds:
        described["median_seconds_after_window_end"] = round(median(seconds), 1)
    return {**described, "prices": prices_table(courses)}
