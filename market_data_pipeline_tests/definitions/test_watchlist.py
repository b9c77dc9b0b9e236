"""The instruments that are asked for."""

import csv
import logging
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from market_data_pipeline.market.watchlist import WatchlistError, load_watchlist
from market_data_pipeline_tests.conftest import LoadDefinitions

PETR4_VALE3 = ("PETR4", "VALE3")
NO_TICKER = "is not a B3 ticker such as PETR4 or HGLG11"
OF_BRAZIL = "\r\n".join(
    ["Segmento;Ticker;Preço", "Petróleo;petr4;35,50", "Mineração;Vale3;60", ";;"]
)
OF_B3 = """IBOV - Carteira do Dia 22/11/26
Código;Ação;Tipo;Qtde. Teórica;Part. (%)
PETR4;PETROBRAS;PN N2;4.394.245.879;2,741;
VALE3;VALE;ON NM;3.768.464.150;11,2;
Quantidade Teórica Total;;;101.000.000;100;
"""


def written(folder: Path, content: str | bytes) -> str:
    path = folder / "instruments.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_fifty_instruments_come_with_the_package() -> None:
    with resources.files("market_data_pipeline.market").joinpath("watchlist.csv").open() as file:
        rows = [*csv.DictReader(file)]

    assert load_watchlist().tickers == tuple(row["ticker"] for row in rows)
    assert load_watchlist().left_out == ""
    segments = Counter(row["segment"] for row in rows)
    assert segments.total() == 50
    assert segments.keys() == {"blue chip", "FII", "ETF"}


@pytest.mark.parametrize(
    "content",
    [
        "ticker\nPETR4\nVALE3\n",
        "\ufeffticker,segment\nPETR4,oil\n VALE3 ,\n",
        OF_BRAZIL,
        OF_BRAZIL.encode("utf-8-sig"),
        OF_BRAZIL.encode("cp1252"),
        OF_BRAZIL.replace(";", "\t").encode("utf-16"),
        OF_BRAZIL.replace(";", "\t").encode("utf-16-be").join([b"\xfe\xff", b""]),
        "TICKER\rpetr4.sa\rVALE3.SA\r",
        "sep=;\r\nticker;name\r\nPETR4;a\r\nVALE3;b\r\n",
        'ticker,name\n"PETR4","Petrobras, S.A."\n\'VALE3\',"Vale ""ON"""\n',
        "# ours\n\nTicker\n\nPETR4  # oil\n\u200bVA\u00adLE3\u00a0\n\n",
        "PETR4\nVALE3",
        "1;PETR4;oil\n2;VALE3;ore\n",
    ],
)
def test_a_file_is_read_as_it_is(tmp_path: Path, content: str | bytes) -> None:
    watchlist = load_watchlist(written(tmp_path, content))

    assert watchlist.tickers == PETR4_VALE3
    assert watchlist.left_out == ""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("PETR", f"'PETR' {NO_TICKER}"),
        ("12345", f"'12345' {NO_TICKER}"),
        ("VALE\u0663", f"'VALE\u0663' {NO_TICKER}"),
        ("PETRK300", f"'PETRK300' {NO_TICKER}"),
        ("\x1b[31mVALE", f"'[31MVALE' {NO_TICKER}"),
        ("mongodb://user:secret@host", f"'MONGODB://' {NO_TICKER}"),
        ('"VALE5,ore', f"'VALE5,ORE' {NO_TICKER}"),
        ("PETR4F", "PETR4F is of the fractional market: use PETR4"),
        ("^BVSP", "^BVSP is an index: use an ETF such as BOVA11, or remove it"),
        ("PETR4.SA", "PETR4 is already on line 2"),
        (",oil", "no ticker"),
    ],
)
def test_a_line_that_is_no_ticker_costs_itself(tmp_path: Path, line: str, reason: str) -> None:
    watchlist = load_watchlist(written(tmp_path, f"ticker,segment\nPETR4\n{line}\n5GTK11\nVALE3\n"))

    assert watchlist.tickers == ("PETR4", "5GTK11", "VALE3")
    assert watchlist.left_out == f"Left out of the watchlist: line 3: {reason}."


def test_tickers_side_by_side_are_named(tmp_path: Path) -> None:
    watchlist = load_watchlist(written(tmp_path, "PETR4,VALE3,BBAS3\nHGLG11;oil\n"))

    assert watchlist.tickers == ("PETR4",)
    assert "line 1: VALE3, BBAS3 after another ticker: one ticker a line; " in watchlist.left_out


def test_what_b3_publishes_is_read(tmp_path: Path) -> None:
    watchlist = load_watchlist(written(tmp_path, OF_B3.encode("cp1252")))

    assert watchlist.tickers == PETR4_VALE3
    assert f"line 2: 'Código' {NO_TICKER}; line 5: 'Quantidade' {NO_TICKER}." in watchlist.left_out


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no instruments: put a ticker such as PETR4 on each line below the header"),
        (b"ticker\n", "has no instruments"),
        (b"root:x:0:0:root:/root:/bin/sh\n", "has no instruments"),
        (b"\x89PNG\r\n\x1a\n\0\0", "has no instruments"),
        (b"PETR4\n" * 200_000, "cannot be read: it is larger than 1 MiB"),
        (Path("nowhere.csv"), "cannot be read: No such file or directory"),
        (Path(), "cannot be read: it is not a file"),
        (Path("/dev/zero"), "cannot be read: it is not a file"),
    ],
)
def test_a_file_without_a_ticker_is_an_error_that_shows_nothing_of_it(
    tmp_path: Path, content: bytes | Path, reason: str
) -> None:
    path = written(tmp_path, content) if isinstance(content, bytes) else str(tmp_path / content)

    with pytest.raises(WatchlistError) as refused:
        load_watchlist(path)

    assert str(refused.value).startswith(f"WATCHLIST_FILE {path} {reason}")
    assert "root:x" not in str(refused.value)


def test_what_is_wrong_is_said_at_start(
    load_definitions: LoadDefinitions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, "ticker\nPETR4\nPETR4F\n")
    with caplog.at_level(logging.WARNING):
        load_definitions(WATCHLIST_FILE=path)
        Path(path).unlink()
        load_definitions(WATCHLIST_FILE=path)

    said = [each for each in caplog.messages if "atchlist" in each.lower()]
    assert said == [
        "Left out of the watchlist: line 3: PETR4F is of the fractional market: use PETR4.",
        f"WATCHLIST_FILE {path} cannot be read: No such file or directory.",
    ]
