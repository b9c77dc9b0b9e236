"""The report on a session: what it says, where it is, and when it is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.definitions import defs
from market_data_pipeline.operation.session_report import every_session
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline_tests.conftest import (
    LIVE_ON_TUESDAY,
    Pipeline,
    SetClock,
    SetWatchlist,
    at,
)
from market_data_pipeline_tests.observed import logs, metadata
from market_data_pipeline_tests.record.helpers import SECOND, report, row, times

MONDAY, TUESDAY = "2026-11-16", "2026-11-17"


class Page(HTMLParser):
    """A page as a browser reads it: its elements, its text, the cells of its table."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def page_of(shown: dict[str, Any]) -> Page:
    return Page(Path(shown["report"]).read_text("utf-8"))


def test_a_page_to_forward(pipeline: Pipeline) -> None:
    name = "<script>alert(1)</script> & Cia"
    pipeline.sandbox.faults = [Fault(ticker="VALE3", fields={"shortName": name})]
    pipeline.run(LIVE_ON_TUESDAY)

    shown = metadata(report(pipeline, TUESDAY), "session_report", TUESDAY)

    page = page_of(shown)
    assert "B3 session of Tuesday, 17 November 2026" in page.text
    assert "made up by a sandbox" in page.text
    assert "1 of 10, none for 10:00 to 14:30" in page.text
    assert "14,954 of 15,000 until 1 Dec" in page.text
    assert "1 window, median 5 s after the end" in page.text
    header, *rows = page.rows
    assert header == ["Instrument", "Session", "Last", "Change", "Low to high", "Volume", "Time"]
    assert len(rows) == page.tags.count("tr") - 1 == 50
    changes = [float(row[3].strip("%")) for row in rows]
    assert changes == sorted(changes, reverse=True)
    assert any(row[0] == f"VALE3{name}" for row in rows)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert shown["windows"] == "1 of 10, none for 10:00 to 14:30"


@pytest.mark.usefixtures("four_instruments")
def test_a_past_session_from_bars(make_pipeline: Callable[..., Any]) -> None:
    with make_pipeline(plan="pro") as pipeline:
        pipeline.run(f"{MONDAY}T10:00-0300", f"{MONDAY}T17:30-0300")

        page = page_of(metadata(report(pipeline, MONDAY), "session_report", MONDAY))

        # Of the last session before it nothing is stored, and bars have no volume of the day.
        assert page.rows[0] == ["Instrument", "Session", "Last", "Low to high", "Time"]
        assert "no window was published" in page.text
        assert "0 live, " in page.text


def test_withheld_prices_are_explained(stored: Pipeline) -> None:
    price = row(stored, LIVE_ON_TUESDAY).price
    stored.sandbox.faults = [times(stored, 100)]
    stored.run(SECOND)

    shown = metadata(report(stored, TUESDAY), "session_report", TUESDAY)

    assert shown["withheld"] == 1
    assert f"15:30 VALE3 {price * 100:.2f} after {price:.2f}" in page_of(shown).text


@pytest.mark.parametrize(
    ("day", "why"),
    [
        ("2026-11-18", "No window has ended on 2026-11-18."),
        (MONDAY, f"No prices of {MONDAY} are stored, so there is nothing to report."),
    ],
)
def test_what_there_is_no_report_on_is_said(pipeline: Pipeline, day: str, why: str) -> None:
    result = report(pipeline, day)

    assert result.success is (day == MONDAY)
    assert not result.asset_materializations_for_node("session_report")
    assert why in logs(pipeline, result)


def test_an_object_store_holds_the_page_next_to_the_quotes(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    store = QuoteStore(path="memory://bucket/prices", publish_made_up_prices=True)
    store.save(pipeline.store.load([LIVE_ON_TUESDAY]), [LIVE_ON_TUESDAY])

    shown = metadata(report(pipeline, TUESDAY, store=store), "session_report")

    path = store.folder.parent / "session_report" / f"{TUESDAY}.html"
    assert shown["report"] == str(path)
    assert "B3 session of Tuesday" in path.read_text("utf-8")


@pytest.mark.usefixtures("four_instruments")
def test_a_file_that_cannot_be_read_costs_its_window_alone(stored: Pipeline) -> None:
    stored.run(SECOND)
    (stored.store.folder / f"{LIVE_ON_TUESDAY}.parquet").write_bytes(b"no Parquet")

    result = report(stored, TUESDAY)

    assert metadata(result, "session_report")["windows"] == "1 of 11, none for 10:00 to 15:00"
    left_out = f"Left out: {stored.store.folder}/{LIVE_ON_TUESDAY}.parquet (Parquet magic bytes"
    assert left_out in logs(stored, result)


@pytest.mark.usefixtures("four_instruments")
def test_how_late_a_window_was_is_said_in_hours(pipeline: Pipeline, set_clock: SetClock) -> None:
    pipeline.run(LIVE_ON_TUESDAY, select="quotes")
    set_clock(at("2026-11-17T20:39"))
    publish = {"kafka_publication": {"publish_history": True}}
    pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication", config=publish)

    shown = metadata(report(pipeline, TUESDAY), "session_report", TUESDAY)

    late = "1 window, median 5 h 39 min after the end, at most 5 h 39 min"
    assert shown["on_the_topic"] == late
    assert late in page_of(shown).text


@pytest.mark.parametrize(("price", "flat"), [(50.0001, True), (49.9999, True), (50.5, False)])
def test_a_rounding_is_drawn_as_no_move(
    pipeline: Pipeline, watchlist: SetWatchlist, price: float, flat: bool
) -> None:
    watchlist(["VALE3"])
    fields = {"regularMarketPrice": price, "regularMarketPreviousClose": 50}
    pipeline.sandbox.faults = [Fault(fields=fields)]
    pipeline.run(LIVE_ON_TUESDAY)

    shown = metadata(report(pipeline, TUESDAY), "session_report", TUESDAY)

    market, instrument = re.findall(
        r'class="course" d="M0.0,([\d.]+)h0L[\d.]+,([\d.]+)"', Path(shown["report"]).read_text()
    )
    for y, height in ((market, 120), (instrument, 28)):
        assert (abs(float(y[0]) - float(y[1])) < height / 20) == flat


def test_every_session_is_reported_an_hour_after_its_end(
    pipeline: Pipeline, instance: dg.DagsterInstance, set_clock: SetClock
) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    set_clock(at("2026-11-19T09:00"))  # the daemon was down, and catches up
    ticks = [
        every_session.evaluate_tick(
            dg.build_schedule_context(
                instance=instance,
                scheduled_execution_time=at(time),
                repository_def=defs.get_repository_def(),
            )
        )
        for time in (f"{TUESDAY}T19:00", "2026-11-20T19:00")
    ]

    (request,) = ticks[0].run_requests or ()
    assert request.partition_key == TUESDAY
    assert "report" in metadata(report(pipeline, TUESDAY), "session_report", TUESDAY)
    assert ticks[1].skip_message == "B3 has no session on Fri 20 Nov."
    schedule = defs.get_schedule_def(every_session.name)
    assert schedule.cron_schedule == "0 19,23 * * 1-5"
