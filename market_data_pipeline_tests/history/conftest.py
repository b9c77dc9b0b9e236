"""A short watchlist: what holds for four papers holds for fifty, in less time."""

from pathlib import Path

import pytest

PAPERS = ("PETR4", "BBAS3", "HGLG11", "BOVA11")


@pytest.fixture
def four_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Makes the watchlist four papers long."""
    watchlist(PAPERS, tmp_path, monkeypatch)
    return PAPERS


def watchlist(tickers: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes these papers the watchlist."""
    file = folder / "watchlist.csv"
    file.write_text("\n".join(["ticker", *tickers]) + "\n")
    monkeypatch.setenv("WATCHLIST_FILE", str(file))
