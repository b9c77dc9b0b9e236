"""How far prices have moved since the window before, and which moves nobody should act on.

A price that is doubted is stored but not published. It is no measure for the windows that follow,
however often it comes again: they are compared with the last price that was trusted, until
somebody accepts the move. What is doubted and what is accepted is in the metadata of the windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from market_data_pipeline.asset_keys import PUBLICATION, QUOTES
from market_data_pipeline.assets.common import WINDOWS
from market_data_pipeline.parquet_io import QuotesParquetIOManager
from market_data_pipeline.quote import Quote, quotes_from
from market_data_pipeline.windows import Window

# Between two windows of half an hour hardly a paper doubles or halves; a split does it, and so does
# a source that sends cents for reais.
LARGEST_FACTOR = 2.0
DOUBTED, ACCEPTED = "doubted", "accepted_moves"


@dataclass(frozen=True)
class Move:
    """A quote, and the last price of its paper that was trusted."""

    quote: Quote
    before: float

    @property
    def plausible(self) -> bool:
        """Whether the price is within the factor that a price may move by."""
        return 1 / LARGEST_FACTOR <= self.quote.price / self.before <= LARGEST_FACTOR

    def __str__(self) -> str:
        return f"{self.quote.ticker} {self.quote.price:g} after {self.before:g}"


@dataclass(frozen=True)
class PricesBefore:
    """The prices of the last window before that is stored, and those of them to compare with."""

    stored: Mapping[str, float]
    trusted: Mapping[str, float]


def moves(quotes: Iterable[Quote], before: Mapping[str, float]) -> list[Move]:
    """The moves of quotes in the order of time; those of a paper that has no price before are none.

    Args:
        quotes: of one window or several.
        before: the prices to compare the first ones with, by ticker.
    """
    trusted = dict(before)
    found = []
    for quote in quotes:
        # A paper that was renamed since is compared with what it was called.
        last = trusted.get(quote.ticker) or trusted.get(quote.requested_ticker)
        move = Move(quote, last or quote.price)
        if last:
            found.append(move)
        if move.plausible:
            trusted[quote.ticker] = quote.price
    return found


def prices_before(
    instance: dg.DagsterInstance, store: QuotesParquetIOManager, window: Window
) -> PricesBefore:
    """The prices before a window, from the last one that is stored with a quote.

    Looked for as far back as a session is long: that finds the close of the one before.
    """
    earlier = WINDOWS.before(window)
    for _ in range(len(WINDOWS.of_session(window.day)) + 1):
        if earlier is None:
            break
        stored = store.stored(QUOTES, earlier.key)
        if stored is not None and not stored.empty:
            prices = {quote.ticker: quote.price for quote in quotes_from(stored)}
            return PricesBefore(prices, prices | _trusted_instead(instance, earlier))
        earlier = WINDOWS.before(earlier)
    return PricesBefore({}, {})


def record_of_doubts(window: Window, implausible: Iterable[Move]) -> dict[str, Any]:
    """The metadata by which a window remembers which prices are doubted, and what came before."""
    doubted = {
        move.quote.ticker: move.before
        for move in implausible
        if move.quote.window_start == window.start
    }
    return {DOUBTED: doubted} if doubted else {}


def doubted_tickers(instance: dg.DagsterInstance, window: Window) -> set[str]:
    """The tickers of a window whose price is doubted."""
    return set(_metadata(instance, QUOTES, window).get(DOUBTED, {}))


def _trusted_instead(instance: dg.DagsterInstance, window: Window) -> dict[str, float]:
    """The prices to trust instead of those of the window that are doubted."""
    doubted = _metadata(instance, QUOTES, window).get(DOUBTED, {})
    if not doubted:
        return {}
    accepted = _metadata(instance, PUBLICATION, window).get(ACCEPTED, [])
    return {ticker: price for ticker, price in doubted.items() if ticker not in accepted}


def _metadata(instance: dg.DagsterInstance, asset: dg.AssetKey, window: Window) -> dict[str, Any]:
    """What the last materialization of a window says about itself."""
    wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[window.key])
    for record in instance.fetch_materializations(wanted, limit=1).records:
        if record.asset_materialization:
            metadata = record.asset_materialization.metadata
            return {name: value.value for name, value in metadata.items()}
    return {}
