"""What the tests of the UI share."""

import pytest

from market_data_pipeline_tests.conftest import SetWatchlist


@pytest.fixture
def one_instrument(watchlist: SetWatchlist) -> None:
    """Makes the watchlist one instrument long."""
    watchlist(("PETR4",))
