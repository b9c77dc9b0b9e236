"""A short watchlist: what holds for four instruments holds for fifty, in less time."""

from pathlib import Path

import pytest

INSTRUMENTS = ("PETR4", "BBAS3", "HGLG11", "BOVA11")


@pytest.fixture
def four_instruments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Makes the watchlist four instruments long."""
    watchlist(INSTRUMENTS, tmp_path, monkeypatch)
    return INSTRUMENTS


def watchlist(tickers: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes these instruments the watchlist."""
    file = folder / "watchlist.csv"
    file.write_text("\n".join(["ticker", *tickers]) + "\n")
    monkeypatch.setenv("WATCHLIST_FILE", str(file))
