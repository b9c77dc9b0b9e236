"""A real file of B3, beside an independent reading of it."""

import re
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from market_data_pipeline.b3.files import B3History
from market_data_pipeline.storage.official_close import COLUMNS
from market_data_pipeline_tests.b3.conftest import Official
from market_data_pipeline_tests.b3.files import FileServer
from market_data_pipeline_tests.conftest import SetClock, at
from market_data_pipeline_tests.supervised import ROOT

REAL = Path(__file__).with_name("COTAHIST_D04012016.ZIP")
# By the widths of B3's description, read from left to right.
FORM = re.compile(
    r"01(?P<DATA>.{8})(?P<CODBDI>.{2})(?P<CODNEG>.{12})(?P<TPMERC>.{3})(?P<NOMRES>.{12})"
    r"(?P<ESPECI>.{10})(?P<PRAZOT>.{3})(?P<MODREF>.{4})(?P<PREABE>.{13})(?P<PREMAX>.{13})"
    r"(?P<PREMIN>.{13})(?P<PREMED>.{13})(?P<PREULT>.{13})(?P<PREOFC>.{13})(?P<PREOFV>.{13})"
    r"(?P<TOTNEG>.{5})(?P<QUATOT>.{18})(?P<VOLTOT>.{18})(?P<PREEXE>.{13})(?P<INDOPC>.)"
    r"(?P<DATVEN>.{8})(?P<FATCOT>.{7})(?P<PTOEXE>.{13})(?P<CODISI>.{12})(?P<DISMES>.{3})"
)
TEXTS = {"ticker": "CODNEG", "isin": "CODISI", "name": "NOMRES", "kind": "ESPECI"}
NUMBERS = {"volume": "QUATOT", "trades": "TOTNEG", "distribution": "DISMES"}
PRICES = {
    "open": "PREABE",
    "high": "PREMAX",
    "low": "PREMIN",
    "average": "PREMED",
    "close": "PREULT",
}


@pytest.fixture
def served(b3: FileServer) -> FileServer:
    b3.files[REAL.name] = REAL.read_bytes()
    return b3


def test_every_record_of_the_cash_market_is_read_as_it_stands(served: FileServer) -> None:
    with zipfile.ZipFile(REAL) as archive:
        lines = archive.read("COTAHIST_D04012016.TXT").decode("latin-1").splitlines()
    matches = [match for line in lines if (match := FORM.fullmatch(line))]
    cash = {each["CODNEG"].strip(): each for each in matches if each["TPMERC"] == "010"}
    assert (len(lines), len(matches), len(cash)) == (1745, 1743, 424)
    assert {each["FATCOT"] for each in cash.values()} == {"0000001", "0001000"}

    found = B3History(served.url).sessions("2016-01-04", cash)["2016-01-04"]

    assert found.keys() == cash.keys()
    for ticker, match in cash.items():
        record = found[ticker]
        factor = int(match["FATCOT"])
        assert record["quote_factor"] == factor
        assert {name: record[name] for name in TEXTS} == {
            name: match[field].strip() for name, field in TEXTS.items()
        }
        assert {name: record[name] for name in NUMBERS} == {
            name: int(match[field]) for name, field in NUMBERS.items()
        }
        # repr of a double gives the shortest number that is nearest to it.
        assert {name: Decimal(repr(record[name])) for name in PRICES} == {
            name: Decimal(match[field]) / 100 / factor for name, field in PRICES.items()
        }
        assert Decimal(repr(record["volume_brl"])) == Decimal(match["VOLTOT"]) / 100


def test_the_example_for_a_quant_reads_it(
    served: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "reading.md").read_text("utf-8")
    (example,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    monkeypatch.setenv("B3_HISTORY_URL", served.url)
    found: dict[str, Any] = {"pd": pd}

    exec(example.replace("1998", "2016-01-04"), found)

    assert list(found["closes"]["ticker"]) == ["PETR4", "VALE5"]


def test_the_watchlist_of_it_is_stored(
    served: FileServer, official: Official, set_clock: SetClock
) -> None:
    set_clock(at("2016-02-04T20:30"))
    result = official("2016-01-04")

    assert result.success
    assert served.asked == [REAL.name]
    stored = official.documents()
    assert len(stored) == 33
    closes = {ticker: stored[f"{ticker}|2016-01-04"]["close"] for ticker in ("BOVA11", "HGLG11")}
    assert closes == {"BOVA11": 41.10, "HGLG11": 998.88}
    petr4 = stored["PETR4|2016-01-04"]
    assert petr4.keys() == COLUMNS.keys() | {"_id", "created_at", "run_id"}
    assert petr4["created_at"].tzinfo
    assert (petr4["origin"], petr4["run_id"]) == ("localhost", result.run_id)

    assert official("2016-01-04").success
    again = official.documents()
    assert again.keys() == stored.keys()
    assert again["PETR4|2016-01-04"]["created_at"] == petr4["created_at"]
