"""Short watchlists: what holds for a few instruments holds for fifty, in less time."""

from pathlib import Path

import pytest


@pytest.fixture
def four_instruments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the watchlist four instruments long."""
    _watch(("PETR4", "BBAS3", "HGLG11", "VALE3"), tmp_path, monkeypatch)


@pytest.fixture
def two_instruments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the watchlist two instruments long."""
    _watch(("PETR4", "BBAS3"), tmp_path, monkeypatch)


def _watch(tickers: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "watchlist.csv"
    file.write_text("\n".join(["ticker", *tickers]) + "\n")
    monkeypatch.setenv("WATCHLIST_FILE", str(file))
