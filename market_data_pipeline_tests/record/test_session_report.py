"""The report on a session: what it says, where it is, and when it is written."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.definitions import defs
from market_data_pipeline.operation.session_report import every_session, session_report
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline_tests.conftest import (
    LIVE_ON_TUESDAY,
    TUESDAY_15_00,
    Pipeline,
    SetClock,
    SetWatchlist,
    at,
)
from market_data_pipeline_tests.observed import logs, metadata
from market_data_pipeline_tests.record.helpers import SECOND, report, row, times

MONDAY, TUESDAY = "2026-11-16", "2026-11-17"


def text_of(html: str) -> str:
    """What a browser shows of it."""
    return unescape(re.sub(r"<[^>]*>", "", html))


def page_of(shown: dict[str, Any]) -> str:
    return Path(shown["report"]).read_text("utf-8")


def rows_of(page: str) -> list[list[str]]:
    """The texts in the cells of its table."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    cells = [re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"\s*\n\s*", "", text_of(cell)) for cell in row] for row in cells]


def test_a_page_to_forward(pipeline: Pipeline) -> None:
    name = "<script>alert(1)</script> & Cia"
    pipeline.sandbox.faults = [Fault(ticker="VALE3", fields={"shortName": name})]
    pipeline.run(LIVE_ON_TUESDAY)

    shown = metadata(report(pipeline, TUESDAY), "session_report", TUESDAY)

    page = page_of(shown)
    for text in (
        "B3 session of Tuesday, 17 November 2026",
        "made up by a sandbox",
        "1 of 10, none for 10:00 to 14:30",
        "14,954 of 15,000 until 1 Dec",
        "1 window, median 5 s after the end",
    ):
        assert text in text_of(page)
    header, *rows = rows_of(page)
    assert header == ["Instrument", "Session", "Last", "Change", "Low to high", "Volume", "Time"]
    assert len(rows) == 50
    changes = [float(row[3].strip("%")) for row in rows]
    assert changes == sorted(changes, reverse=True)
    assert any(row[0] == f"VALE3{name}" for row in rows)
    assert not re.findall("<(script|link|img|iframe)", page, re.IGNORECASE)
    assert shown["windows"] == "1 of 10, none for 10:00 to 14:30"


@pytest.mark.usefixtures("four_instruments")
def test_the_median_of_the_page_and_the_end_of_its_line_are_one(stored: Pipeline) -> None:
    stored.sandbox.faults = [times(stored, 1.2, "PETR4"), Fault(ticker="VALE3", status=404)]
    stored.run(SECOND)

    shown = metadata(report(stored, TUESDAY), "session_report")

    (ends,) = re.findall(r"<span>(\S+%) to (\S+%)</span>", page_of(shown))
    assert f"{shown['median_change_percent']:+.2f}%" in ends


@pytest.mark.usefixtures("four_instruments")
def test_a_past_session_from_bars(pipeline: Pipeline) -> None:
    pipeline.sandbox.plan = "pro"
    pipeline.run(f"{MONDAY}T10:00-0300", f"{MONDAY}T17:30-0300")

    page = page_of(metadata(report(pipeline, MONDAY), "session_report", MONDAY))

    # Of the last session before it nothing is stored, and bars have no volume of the day.
    assert rows_of(page)[0] == ["Instrument", "Session", "Last", "Low to high", "Time"]
    assert "no window was published" in page
    assert "0 live, " in page


@pytest.mark.usefixtures("four_instruments")
def test_a_withheld_price_is_explained_and_a_damaged_file_costs_its_window_alone(
    stored: Pipeline,
) -> None:
    price = row(stored, LIVE_ON_TUESDAY).price
    stored.sandbox.faults = [times(stored, 100)]
    stored.run(SECOND)
    (stored.store.folder / f"{LIVE_ON_TUESDAY}.parquet").write_bytes(b"no Parquet")

    result = report(stored, TUESDAY)

    shown = metadata(result, "session_report")
    assert shown["withheld"] == 1
    page = page_of(shown)
    assert f"15:30 VALE3 {price * 100:.2f} after {price:.2f}" in page
    assert rows_of(page)[-1][0].startswith("VALE3 withheld")
    assert '<td class="number change soft">' in page
    assert shown["windows"] == "1 of 11, none for 10:00 to 15:00"
    left_out = f"Left out: {stored.store.folder}/{LIVE_ON_TUESDAY}.parquet (Parquet magic bytes"
    assert left_out in logs(stored, result)


@pytest.mark.parametrize(
    ("day", "why"),
    [
        ("", "There is no partition: choose one of the asset's"),
        ("2026-11-18", "No window has ended on 2026-11-18."),
        (MONDAY, f"No prices of {MONDAY} are stored, so there is nothing to report."),
    ],
)
def test_what_there_is_no_report_on_is_said(pipeline: Pipeline, day: str, why: str) -> None:
    result = report(pipeline, day)

    assert result.success is (day == MONDAY)
    assert not result.asset_materializations_for_node("session_report")
    assert why in logs(pipeline, result)


def test_a_range_of_sessions_is_one_run(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY, select="quotes")

    result = report(pipeline, MONDAY, last=TUESDAY)

    [event] = result.asset_materializations_for_node("session_report")
    assert event.partition == TUESDAY
    assert f"No prices of {MONDAY} are stored" in logs(pipeline, result)


def test_the_session_of_today_may_be_in_a_backfill() -> None:
    """Dagster refuses one whose upstream partitions do not exist yet."""
    (spec,) = session_report.specs
    mapping, sessions = next(iter(spec.deps)).partition_mapping, spec.partitions_def
    assert mapping
    assert sessions
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(
        sessions.subset_with_partition_keys([TUESDAY]),
        sessions,
        WINDOWS.partitions,
        current_time=TUESDAY_15_00,
    )

    assert LIVE_ON_TUESDAY in found.partitions_subset.get_partition_keys()
    assert found.required_but_nonexistent_subset.is_empty


def test_an_object_store_holds_the_page_next_to_the_quotes(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    store = QuoteStore(path="memory://bucket/prices", publish_made_up_prices=True)
    store.save(pipeline.store.load([LIVE_ON_TUESDAY]), [LIVE_ON_TUESDAY])

    shown = metadata(report(pipeline, TUESDAY, store=store), "session_report")

    path = store.folder.parent / "session_report" / f"{TUESDAY}.html"
    assert shown["report"] == str(path)
    assert "B3 session of Tuesday" in path.read_text("utf-8")


@pytest.mark.usefixtures("four_instruments")
def test_how_late_a_window_was_is_said_in_hours(pipeline: Pipeline, set_clock: SetClock) -> None:
    pipeline.run(LIVE_ON_TUESDAY, select="quotes")
    set_clock(at("2026-11-17T20:39"))
    publish = {"kafka_publication": {"publish_history": True}}
    pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication", config=publish)

    shown = metadata(report(pipeline, TUESDAY), "session_report", TUESDAY)

    late = "1 window, median 5 h 39 min after the end, at most 5 h 39 min"
    assert shown["on_the_topic"] == late
    assert late in page_of(shown)


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
        r'class="course" d="M0.0,([\d.]+)h0L[\d.]+,([\d.]+)"', page_of(shown)
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
