"""The report on a session: what it says, where it is, and when it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.definitions import defs
from market_data_pipeline.market.windows import TradingWindows
from market_data_pipeline.report.reporting import report_sessions
from market_data_pipeline.report.session_report import session_report
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline
from market_data_pipeline_tests.observed import logs

SetClock = Callable[[datetime], None]
MONDAY, TUESDAY = "2026-11-16", "2026-11-17"


def report(pipeline: Pipeline, *days: str, store: QuoteStore | None = None) -> Any:
    """A run of the job."""
    return session_report.execute_in_process(
        instance=pipeline.instance,
        resources={"quote_store": store or pipeline.store},
        run_config={"ops": {"report": {"config": {"sessions": list(days)}}}},
        raise_on_error=False,
    )


def told(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """What the UI shows of each session that was reported."""
    return {
        event.partition: {name: value.value for name, value in event.metadata.items()}
        for event in result.asset_materializations_for_node("report")
    }


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


def test_a_page_to_forward(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY)

    shown = told(report(pipeline, TUESDAY))[TUESDAY]

    page = Page(Path(shown["report"]).read_text("utf-8"))
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
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert shown["windows"] == "1 of 10, none for 10:00 to 14:30"


def test_a_name_is_text_whatever_is_in_it(pipeline: Pipeline) -> None:
    name = "<script>alert(1)</script> & Cia"
    pipeline.sandbox.faults = [Fault(ticker="VALE3", fields={"shortName": name})]
    pipeline.run(LIVE_ON_TUESDAY)

    page = Page(Path(told(report(pipeline, TUESDAY))[TUESDAY]["report"]).read_text("utf-8"))

    assert "script" not in page.tags
    assert any(row[0] == f"VALE3{name}" for row in page.rows)


def test_a_past_session_from_bars(make_pipeline: Callable[..., Any]) -> None:
    with make_pipeline(plan="pro") as pipeline:
        pipeline.run(f"{MONDAY}T10:00-0300", f"{MONDAY}T17:30-0300")

        shown = told(report(pipeline, MONDAY))[MONDAY]

        page = Page(Path(shown["report"]).read_text("utf-8"))
        # Of the last session before it nothing is stored, and bars have no volume of the day.
        assert page.rows[0] == ["Instrument", "Session", "Last", "Low to high", "Time"]
        assert "no window was published" in page.text
        assert "0 live, " in page.text


def test_withheld_prices_are_explained(pipeline: Pipeline, set_clock: SetClock) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    set_clock(datetime(2026, 11, 17, 18, 30, 5, tzinfo=UTC))
    (stored,) = pipeline.documents({"ticker": "VALE3"})
    cents = {"regularMarketPrice": stored["price"] * 100}
    pipeline.sandbox.faults = [Fault(ticker="VALE3", fields=cents)]
    pipeline.run("2026-11-17T15:00-0300")

    shown = told(report(pipeline, TUESDAY))[TUESDAY]

    page = Page(Path(shown["report"]).read_text("utf-8"))
    assert shown["withheld"] == 1
    assert f"15:30 VALE3 {stored['price'] * 100:.2f} after {stored['price']:.2f}" in page.text


def test_a_session_without_a_price_is_no_report(pipeline: Pipeline) -> None:
    result = report(pipeline, MONDAY)

    assert result.success
    assert told(result) == {}
    assert f"{MONDAY}: no prices are stored" in logs(pipeline, result)


@pytest.mark.parametrize(
    ("day", "why"),
    [
        (
            "2026-11-15",
            "No window has ended on 2026-11-15: choose a day with a session, from PARTITIONS_",
        ),
        ("17/11/2026", "sessions: '17/11/2026' is not a day such as 2026-11-23."),
    ],
)
def test_a_day_without_a_session_is_refused(pipeline: Pipeline, day: str, why: str) -> None:
    result = report(pipeline, day)

    assert not result.success
    assert why in logs(pipeline, result)


def test_an_object_store_holds_the_page_next_to_the_quotes(pipeline: Pipeline) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    store = QuoteStore(path="memory://bucket/prices", publish_made_up_prices=True)
    store.save(pipeline.store.load([LIVE_ON_TUESDAY]), [LIVE_ON_TUESDAY])

    shown = told(report(pipeline, TUESDAY, store=store))[TUESDAY]

    path = store.folder.parent / "session_report" / f"{TUESDAY}.html"
    assert shown["report"] == str(path)
    assert "B3 session of Tuesday" in path.read_text("utf-8")


class Watch:
    """The sensor as the daemon looks with it, at moments in São Paulo."""

    def __init__(self, instance: dg.DagsterInstance, set_clock: SetClock) -> None:
        self.instance = instance
        self.cursor: str | None = None
        self._set_clock = set_clock

    def store(self, *keys: str, asset: str = "quotes") -> None:
        for key in keys:
            self.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key))

    def at(self, text: str) -> list[str]:
        """The sessions that it launches a run for then."""
        local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("America/Sao_Paulo"))
        self._set_clock(local.astimezone(UTC))
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, repository_def=defs.get_repository_def()
        )
        data = report_sessions.evaluate_tick(context)
        self.cursor = data.cursor
        requests = data.run_requests or []
        return [
            day
            for request in requests
            for day in request.run_config["ops"]["report"]["config"]["sessions"]
        ]


@pytest.fixture
def watch(set_clock: SetClock) -> Iterator[Watch]:
    with dg.instance_for_test() as instance:
        yield Watch(instance, set_clock)


# What is stored has the time of the real clock, which is after these days.
def test_a_session_is_reported_once_ten_minutes_after_its_end(watch: Watch) -> None:
    assert watch.at(f"{TUESDAY}T17:50") == []
    watch.store(f"{TUESDAY}T17:00-0300")
    assert watch.at(f"{TUESDAY}T17:51") == []
    watch.store(f"{TUESDAY}T17:30-0300")
    assert watch.at(f"{TUESDAY}T18:09") == []
    assert watch.at(f"{TUESDAY}T18:10") == [TUESDAY]
    assert watch.at(f"{TUESDAY}T18:11") == []
    assert watch.at("2026-11-18T12:00") == []


def test_a_session_that_is_filled_later_is_reported_again(watch: Watch) -> None:
    assert watch.at("2026-11-18T12:00") == []
    watch.store(f"{MONDAY}T10:00-0300", f"{TUESDAY}T10:00-0300", "2026-11-18T11:30-0300")
    assert watch.at("2026-11-18T12:01") == [MONDAY, TUESDAY]
    watch.store(f"{TUESDAY}T10:00-0300", asset="kafka_publication")
    assert watch.at("2026-11-18T12:02") == [TUESDAY]
    assert watch.at("2026-11-18T12:03") == []


def test_more_than_one_look_takes_in(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_data_pipeline.report.reporting.MOST_EVENTS", 2)
    assert watch.at("2026-11-18T12:00") == []
    watch.store(*(f"{MONDAY}T1{hour}:00-0300" for hour in (0, 1)), f"{TUESDAY}T10:00-0300")
    assert watch.at("2026-11-18T12:01") == [MONDAY]
    assert watch.at("2026-11-18T12:02") == [TUESDAY]


def test_no_session_is_left_out_if_the_daemon_was_down_for_longer(watch: Watch) -> None:
    assert watch.at(f"{MONDAY}T10:40") == []
    watch.store(f"{MONDAY}T10:00-0300")
    assert watch.at(f"{MONDAY}T11:40") == []
    watch.store(f"{TUESDAY}T17:30-0300")
    assert watch.at("2026-11-18T09:40") == [MONDAY, TUESDAY]
    assert watch.at("2026-11-18T09:41") == []


def test_a_session_without_quotes_is_not_reported(watch: Watch) -> None:
    assert watch.at(f"{TUESDAY}T17:50") == []
    assert watch.at(f"{TUESDAY}T18:10") == []
    assert watch.at("2026-11-20T12:00") == []  # a holiday


def test_a_deployment_that_has_quotes_already_reports_the_last_session(watch: Watch) -> None:
    watch.store(f"{TUESDAY}T17:30-0300")

    assert watch.at("2026-11-18T09:00") == [TUESDAY]


def test_the_first_session_of_a_deployment_is_not_reported_before_its_end(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PARTITIONS_START is today."""
    today = TradingWindows(first_day=date.fromisoformat(TUESDAY))
    monkeypatch.setattr("market_data_pipeline.report.reporting.WINDOWS", today)
    watch.store(f"{TUESDAY}T10:00-0300")
    assert watch.at(f"{TUESDAY}T10:45") == []
    watch.store(f"{TUESDAY}T10:30-0300")
    assert watch.at(f"{TUESDAY}T11:15") == []
    assert watch.at(f"{TUESDAY}T18:10") == [TUESDAY]
