"""B3's close beside ours: what is stored, what is checked, and when it is asked for."""

import re
import shutil
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.b3.asset import every_evening
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import close_of
from market_data_pipeline.runs.common import QUOTES, WINDOWS
from market_data_pipeline.runs.run_history import runs_of
from market_data_pipeline.storage.official_close import OFFICIAL_CLOSE, official_closes
from market_data_pipeline_tests.b3.conftest import EVENING, Official
from market_data_pipeline_tests.b3.files import (
    cotahist,
    record,
    session_file,
    zipped,
)
from market_data_pipeline_tests.conftest import Pipeline, SetClock, at
from market_data_pipeline_tests.observed import checks, failure_of, metadata
from market_data_pipeline_tests.publication.helpers import quote
from market_data_pipeline_tests.record.helpers import report

LAST = "2026-11-17T17:30-0300"
DAY = date(2026, 11, 17)
CLOSES = {"PETR4": 41.10, "VALE3": 62.80, "BBAS3": 22.60, "HGLG11": 158.40}


@pytest.fixture
def closed(official: Official, four_instruments: tuple[str, ...]) -> Official:
    """B3 with its closes of the four instruments on that Tuesday."""
    funds = {"HGLG11": {"kind": "CI  ER", "bdi": "12"}}
    records = [record(each, CLOSES[each], **funds.get(each, {})) for each in four_instruments]
    official.b3.files["COTAHIST_D17112026.ZIP"] = zipped(cotahist(*records))
    return official


def row(ticker: str, **changes: Any) -> Quote:
    """What we have stored of an instrument: B3's close and volume, observed after the close."""
    after = {"updated_at": close_of(DAY) + timedelta(minutes=20), "volume": 1_000}
    return quote(LAST, ticker, **{"price": CLOSES[ticker], **after, **changes})


def store(pipeline: Pipeline, *rows: Quote) -> None:
    """Stores rows, and another price of an earlier window."""
    before = "2026-11-17T17:00-0300"
    pipeline.store.save([quote(before, "BBAS3", price=21.0), *rows], [before, LAST])


def early(minutes: float) -> datetime:
    return close_of(DAY) - timedelta(minutes=minutes)


def test_the_sandbox_serves_its_market_and_is_red_for_one_instrument_on_request(
    set_clock: SetClock, official: Official
) -> None:
    url = f"{official.pipeline.sandbox.url}/InstDados/SerHist"
    set_clock(at("2026-11-17T18:00:05"))
    assert official.pipeline.run(LAST).success
    set_clock(EVENING)

    assert checks(official(url=url)) == {
        "closes_match": (True, "50 of 50 closes match"),
        "calendar_matches": (True, "B3's sessions are those of the calendar."),
    }
    stored = official.documents()
    assert len(stored) == 50
    assert {each["origin"] for each in stored.values()} == {"brapi-sandbox"}
    ours = {each["ticker"]: each for each in official.pipeline.documents()}
    assert {each["ticker"]: each["close"] for each in stored.values()} == {
        ticker: each["price"] for ticker, each in ours.items()
    }

    prices = ("PREABE", "PREMED", "PREMIN", "PREMAX", "PREULT")
    lower = dict(zip(prices, (4100, 4105, 4090, 4120, 4110), strict=True))
    official.pipeline.sandbox.faults = [Fault(ticker="BOVA11", fields=lower)]
    result = official(url=url)
    assert result.success  # the file was read; the check says what is wrong
    passed, text = checks(result)["closes_match"]
    assert not passed
    assert text == f"49 of 50 closes match; BOVA11 {ours['BOVA11']['price']:.2f} instead of 41.10"


def test_both_stores_hold_the_same(closed: Official) -> None:
    result = closed()

    assert checks(result)["closes_match"] == (True, "There is no price of ours")
    frame = pd.read_parquet(closed.pipeline.folder / "official_close").set_index("ticker")
    assert dict(frame["close"]) == CLOSES
    read = official_closes(closed.pipeline.store, DAY)
    without = {"_id", "created_at", "run_id"}
    for each in closed.documents().values():
        assert read[each["ticker"]] == {name: each[name] for name in each.keys() - without}
    folder = closed.pipeline.folder / "official_close"
    shutil.copy(folder / "2026-11-17.parquet", folder / "2026-11-16.parquet")
    assert official_closes(closed.pipeline.store, date(2026, 11, 16)) == {}
    of_quotes = runs_of(closed.pipeline.instance, WINDOWS.from_key(LAST), QUOTES)
    assert of_quotes == []


EARLY = "3 of 4 closes match; observed before the close: "
# What we have stored of an instrument, and what is said of it if it is wrong:
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("PETR4", {"price": 4.11}, ", looks adjusted by 10"),
    ("PETR4", {"price": 82.2, "source": "daily"}, ", looks adjusted by 2"),
    ("PETR4", {"price": 40.1, "source": "daily"}, ", looks adjusted for a dividend of 1.00"),
    ("VALE3", {"price": 6280.0, "updated_at": early(9)}, ", looks like a unit error"),
    ("VALE3", {"price": 0.628}, ", looks like a unit error"),
    ("BBAS3", {"price": 22.97, "source": "daily"}, ""),
    ("BBAS3", {"price": 22.61}, ""),
    ("PETR4", {"price": 62.8}, ", the close of VALE3"),
]
# and if it is not.
NOTED: list[tuple[str, dict[str, Any], str]] = [
    ("PETR4", {}, "4 of 4 closes match"),
    ("PETR4", {"price": 41.099998474}, "4 of 4 closes match"),  # a float of 32 bits
    ("PETR4", {"price": 40.9, "updated_at": early(12)}, f"{EARLY}PETR4 12 min"),
    ("HGLG11", {"price": 158.9, "updated_at": early(-5)}, f"{EARLY}HGLG11 10 min"),  # funds' call
    ("PETR4", {"price": 45.0, "updated_at": early(1_300)}, f"{EARLY}PETR4 1300 min"),
    (
        "PETR4",
        {"volume": 41_100},
        "4 of 4 closes match; volume of PETR4 41,100 for 1,000, looks like BRL",
    ),
    ("PETR4", {"volume": 100_000}, "4 of 4 closes match; volume of PETR4 100,000 for 1,000"),
    ("PETR4", {"volume": 950}, "4 of 4 closes match"),  # before the after-market
    ("PETR4", {"price": 4.11, "decision": "withheld"}, "3 of 3 closes match"),
    ("PETR4", {"price": 4.11, "origin": "brapi-sandbox"}, "3 of 3 closes match"),
]


@pytest.mark.parametrize(("ticker", "changes", "said"), WRONG + NOTED)
def test_what_our_close_is_beside_that_of_b3(
    ticker: str, changes: dict[str, Any], said: str, closed: Official
) -> None:
    is_wrong = (ticker, changes, said) in WRONG
    if is_wrong:
        instead = f"{changes['price']:.2f} instead of {CLOSES[ticker]:.2f}"
        said = f"3 of 4 closes match; {ticker} {instead}{said}"
    store(closed.pipeline, *(row(each, **changes if each == ticker else {}) for each in CLOSES))

    evaluations = closed().get_asset_check_evaluations()

    (check,) = [each for each in evaluations if each.check_name == "closes_match"]
    assert (check.passed, check.description) == (not is_wrong, said)
    assert check.metadata["named"].value == [ticker] * is_wrong
    assert check.metadata["window"].value == LAST


def test_the_check_of_a_range_names_the_session(closed: Official) -> None:
    closed.b3.files |= session_file("2026-11-16")
    store(closed.pipeline, row("PETR4", price=41.0), row("VALE3", price=62.0), row("BBAS3"))

    result = closed("2026-11-16", "2026-11-17")

    assert checks(result)["closes_match"] == (
        False,
        "1 of 3 closes match; 2026-11-17 PETR4 41.00 instead of 41.10; "
        "2026-11-17 VALE3 62.00 instead of 62.80",
    )
    evaluations = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert evaluations["closes_match"].metadata["named"].value == ["PETR4", "VALE3"]


def test_a_renamed_instrument_is_found_by_the_symbol_of_our_record(
    watchlist: Callable[[list[str]], None], official: Official
) -> None:
    watchlist(["ELET3", "PETR4"])
    official.b3.files["COTAHIST_D17112026.ZIP"] = zipped(cotahist(record(), record("AXIA3", 52.70)))
    renamed = {"requested_ticker": "ELET3", "price": 52.70, "volume": None}
    store(official.pipeline, quote(LAST, "AXIA3", **renamed))

    said = "1 of 1 closes match; B3 has no record of BBAS3"
    assert checks(official())["closes_match"] == (True, said)
    assert official.documents().keys() == {"AXIA3|2026-11-17", "PETR4|2026-11-17"}


def test_made_up_prices_stay_out_of_a_configured_database(closed: Official) -> None:
    closed.pipeline.publish_made_up_prices = False
    closed.b3.server = "brapi-sandbox/0.1"

    assert "made-up prices" in failure_of(closed(), "official_close")
    assert closed.documents() == {}


@pytest.mark.parametrize(
    ("now", "session", "asked"),
    [
        ("2026-11-17T20:30", "2026-11-17", ["COTAHIST_D17112026.ZIP"]),
        # Two days, less a minute, after the end.
        (
            "2026-11-25T17:59",
            "2026-11-23",
            ["COTAHIST_D23112026.ZIP", "COTAHIST_D20112026.ZIP"],
        ),
        ("2026-11-17T17:59", "2026-11-17", []),
    ],
)
def test_a_file_that_is_not_there_yet_fails_the_run_and_no_check(
    now: str, session: str, asked: list[str], set_clock: SetClock, official: Official
) -> None:
    set_clock(at(now))

    result = official(session)

    why = "the session has not ended, or B3's file of the year lacks it."
    if asked:
        why = f"B3 has no {asked[0]}, which appears in the evening or the night after a session."
    said = failure_of(result, "official_close")
    assert said == f"No prices of B3 are stored for {session}: {why}"
    assert result.get_asset_check_evaluations() == []  # nothing new is known
    assert official.b3.asked == asked


@pytest.mark.parametrize(
    ("now", "session", "closed", "answer", "sentence"),
    [
        ("2026-11-25T18:01", "2026-11-23", ["2026-11-20"], 404, "B3 has no usable file for"),
        ("2026-11-23T20:00", "2026-11-23", ["2026-11-20"], 200, "B3 has a file for 2026-11-20"),
        ("2026-11-23T20:00", "2026-11-23", ["2026-11-20"], 404, ""),
        ("2026-11-23T20:00", "2026-11-23", ["2026-11-20"], 500, ""),
        ("2026-01-02T20:00", "2026-01-02", ["2025-12-31", "2026-01-01"], 404, ""),
    ],
)
def test_the_calendar_is_that_of_b3(
    now: str,
    session: str,
    closed: list[str],
    answer: int,
    sentence: str,
    set_clock: SetClock,
    official: Official,
) -> None:
    set_clock(at(now))
    if "no usable file" not in sentence:
        official.b3.files |= session_file(session)
    for day in closed:
        file = session_file(day)
        official.b3.files |= file if answer == 200 else dict.fromkeys(file, answer)

    result = official(session)

    passed, text = checks(result)["calendar_matches"]
    assert text.startswith(sentence)
    assert passed == (not sentence)
    assert result.success == ("no usable file" not in sentence)
    asked = [*dict.fromkeys(official.b3.asked)]  # an error is asked for again
    assert asked == [name for day in (session, *closed) for name in session_file(day)]


@pytest.mark.parametrize(
    ("first", "last", "named"),
    [
        ("2026-11-17", "2026-11-13", " for 2026-11-17 to 2026-11-13"),
        ("2026-11-15", "2026-11-15", " for 2026-11-15"),
        ("1994-06-29", "1994-06-29", " for 1994-06-29"),
        ("", "", ""),
    ],
    ids=["reversed", "a Sunday", "before the first", "launched without a partition"],
)
def test_a_run_without_a_session_is_one_sentence(
    official: Official, first: str, last: str, named: str
) -> None:
    assert failure_of(official(first, last), "official_close") == (
        f"There is no partition{named}: choose one of the asset's, or a range that starts before "
        "its end and ends with one."
    )


def test_more_than_forty_sessions_of_a_year_are_one_request(official: Official) -> None:
    weekdays = pd.bdate_range("2026-09-01", "2026-11-17").strftime("%Y%m%d")
    days = [day for day in weekdays if day not in ("20260907", "20261012", "20261102")]
    lines = [record(day=day) for day in days if day != "20261021"]
    official.b3.files["COTAHIST_A2026.ZIP"] = zipped(cotahist(*lines), "COTAHIST_A2026.TXT")

    result = official("2026-09-01", "2026-11-17")

    assert official.b3.asked == ["COTAHIST_A2026.ZIP"]
    assert len(official.documents()) == len(days) - 1 > 40
    done = {each.partition for each in result.asset_materializations_for_node("official_close")}
    assert len(done) == len(days) - 1
    assert "No prices of B3 are stored for 2026-10-21" in failure_of(result, "official_close")
    assert checks(result)["calendar_matches"] == (
        False,
        "B3 has no usable file for 2026-10-21, sessions by the calendar",
    )


def test_the_file_of_the_year_serves_for_a_session_of_a_past_year(official: Official) -> None:
    year = cotahist(*(record(day=day) for day in ("20250107", "20250111")), day="20251230")
    official.b3.files["COTAHIST_A2025.ZIP"] = zipped(year, "COTAHIST_A2025.TXT")

    result = official("2025-01-07")

    assert result.success
    saturday = (False, "B3 has a file for 2025-01-11, closed by the calendar")
    assert checks(result)["calendar_matches"] == saturday
    assert official.b3.asked == ["COTAHIST_A2025.ZIP"]
    assert official.documents().keys() == {"PETR4|2025-01-07"}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (500, "COTAHIST_A2025.ZIP could not be downloaded from B3 in 3 attempts (it answered 500)"),
        (
            zipped(cotahist(record(day="20250108"), day="20251230"), "COTAHIST_A2025.TXT"),
            "the session has not ended, or B3's file of the year lacks it.",
        ),
    ],
    ids=["refused", "without it"],
)
def test_a_session_of_a_past_year_that_is_lacking_has_the_reason_of_its_file(
    official: Official, answer: int | bytes, why: str
) -> None:
    official.b3.files["COTAHIST_A2025.ZIP"] = answer

    said = failure_of(official("2025-01-07"), "official_close")

    assert said.startswith(f"No prices of B3 are stored for 2025-01-07: {why}")


def test_the_year_of_the_real_has_prices_from_july_on(official: Official) -> None:
    before = record(day="19940630").replace("R$  ", "CR$ ")
    file = cotahist(before, record(day="19940704"), day="19941229")
    official.b3.files["COTAHIST_A1994.ZIP"] = zipped(file, "COTAHIST_A1994.TXT")

    assert official("1994-07-04").success
    assert official.documents().keys() == {"PETR4|1994-07-04"}
    assert "There is no partition" in failure_of(official("1994-06-30"), "official_close")


@pytest.mark.parametrize(
    ("tick", "key"),
    [
        ("2026-11-17T20:00", "2026-11-17"),
        ("2026-11-18T03:00", "2026-11-17"),
        ("2026-11-18T17:00", "2026-11-17"),  # until the next session ends
        ("2026-11-18T20:00", "2026-11-18"),
        ("2026-11-21T12:00", "2026-11-19"),  # Saturday after a holiday
    ],
)
def test_the_schedule_asks_for_the_last_session_until_it_is_stored(
    tick: str, key: str, instance: dg.DagsterInstance
) -> None:
    context = dg.build_schedule_context(instance, scheduled_execution_time=at(tick))

    request = every_evening(context)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == key

    done = dg.AssetMaterialization(OFFICIAL_CLOSE, partition=key)
    instance.report_runless_asset_event(done)
    skipped = every_evening(context)
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == f"B3's prices of {key} are stored."


def test_a_withheld_price_is_explained_by_what_b3_marks(
    set_clock: SetClock, closed: Official
) -> None:
    marked = cotahist(record("PETR4", 41.10, kind="PN  EB  N2", distribution=186))
    closed.b3.files["COTAHIST_D17112026.ZIP"] = zipped(marked)
    closed.b3.files |= session_file("2026-11-16")
    assert closed("2026-11-16", "2026-11-17").success
    price = {"regularMarketPrice": 3.5, "regularMarketPreviousClose": 35.0}
    closed.pipeline.sandbox.faults = [Fault(ticker="PETR4", fields=price)]

    passed, text = checks(closed.pipeline.run(LAST))["prices_plausible"]

    assert not passed
    assert "PETR4 3.50 after 35.00" in text
    assert "B3 marks EB, distribution 186 after 185 on 2026-11-17" in text


def test_the_page_of_the_session_has_it_beside_ours(closed: Official) -> None:
    ours = [row(ticker, price=CLOSES[ticker] - 0.5) for ticker in ("PETR4", "HGLG11")]
    closed.pipeline.store.save(ours, [LAST])
    assert closed().success

    shown = metadata(report(closed.pipeline, "2026-11-17"), "session_report")

    html = Path(shown["report"]).read_text("utf-8")
    assert '<th class="number">B3\'s close</th>' in html
    cells = re.findall(r'<td class="number">([\d.]+)</td>', html)
    assert cells == ["40.60", "41.10", "157.90", "158.40"]


@pytest.mark.parametrize(
    "foreign", [{"a": [1]}, {"ticker": ["PETR4"]}, {"kind": [None]}, {"close": ["41,10"]}]
)
def test_a_file_that_is_not_of_this_asset_costs_no_other_price(
    foreign: dict[str, Any], closed: Official
) -> None:
    assert closed().success
    (path,) = (closed.pipeline.folder / "official_close").iterdir()
    frame = pd.read_parquet(path).head(1)
    odd = frame.assign(**foreign) if foreign.keys() < {*frame} - {"ticker"} else foreign
    pd.DataFrame(odd).to_parquet(path)
    price = {"regularMarketPrice": 3.5, "regularMarketPreviousClose": 35.0}
    closed.pipeline.sandbox.faults = [Fault(ticker=str(frame["ticker"][0]), fields=price)]

    result = closed.pipeline.run(LAST)

    assert result.success
    assert not checks(result)["prices_plausible"][0]
    assert len(closed.pipeline.events()) == 3
    assert report(closed.pipeline, "2026-11-17").success
