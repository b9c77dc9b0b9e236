"""What the tests of the UI share."""

from pathlib import Path

import pytest


@pytest.fixture
def one_instrument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchlist is PETR4."""
    watchlist = tmp_path / "watchlist.csv"
    watchlist.write_text("ticker\nPETR4\n")
    monkeypatch.setenv("WATCHLIST_FILE", str(watchlist))
