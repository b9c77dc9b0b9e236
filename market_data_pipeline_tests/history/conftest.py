"""History: what is observed of past windows."""

from collections.abc import Sequence
from datetime import date
from unittest import mock

from market_data_pipeline.brapi import observe as observations
from market_data_pipeline.brapi.client import Brapi
from market_data_pipeline.brapi.observe import Observation
from market_data_pipeline.market import clock
from market_data_pipeline.market.windows import TradingWindows, Window
from market_data_pipeline_tests.conftest import INSTRUMENTS, Pipeline

WINDOWS = TradingWindows()
MONDAY = date(2026, 11, 16)
MONDAYS = WINDOWS.of_session(MONDAY)


def observe(
    pipeline: Pipeline,
    windows: Sequence[Window],
    tickers: Sequence[str] = INSTRUMENTS,
    trading_windows: TradingWindows = WINDOWS,
) -> Observation:
    """What Brapi has of past windows."""
    there = mock.patch.object(observations, "WINDOWS", trading_windows)
    with there, Brapi(pipeline.settings()).client() as client:
        return observations.observe(client, tickers, windows, clock.utc_now())


def gaps_of(observation: Observation, ticker: str) -> dict[Window, str]:
    """Why windows have no row of a ticker."""
    return {w: gaps[ticker] for w, gaps in observation.missing.items() if ticker in gaps}
