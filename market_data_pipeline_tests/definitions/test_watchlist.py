"""The instruments that are asked for."""

from collections import Counter
from pathlib import Path

import pytest

from market_data_pipeline.market.watchlist import Instrument, WatchlistError, load_watchlist


def written(folder: Path, text: str) -> str:
    path = folder / "instruments.csv"
    path.write_text(text, "utf-8")
    return str(path)


def test_fifty_instruments_come_with_the_package() -> None:
    segments = Counter(instrument.segment for instrument in load_watchlist())

    assert segments.total() == 50
    assert segments.keys() == {"blue chip", "FII", "ETF"}


def test_a_file_replaces_them(tmp_path: Path) -> None:
    text = "\ufeffticker,segment\nPETR4,oil\n HGLG11 ,\n"

    assert load_watchlist(written(tmp_path, text)) == (
        Instrument("PETR4", "oil"),
        Instrument("HGLG11"),
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ticker\n", "has no instruments"),
        ("", "no column 'ticker'"),
        ("symbol\nPETR4\n", "no column 'ticker'"),
        ("ticker\nPETR4\nPETR\n", "line 3: 'PETR' is not a B3 ticker"),
        ("ticker\npetr4\n", "line 2: 'petr4' is not a B3 ticker"),
        ("ticker\nPETR4\nVALE3\nPETR4\n", "line 4: PETR4 is already on line 2"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(WatchlistError, match=sentence):
        load_watchlist(written(tmp_path, text))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(WatchlistError, match=r"nowhere\.csv cannot be read: No such file"):
        load_watchlist(str(tmp_path / "nowhere.csv"))


def test_a_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    path = tmp_path / "instruments.csv"
    path.write_bytes(b"ticker\n\xff\xfe\n")

    with pytest.raises(WatchlistError, match="not UTF-8"):
        load_watchlist(str(path))
