"""Withholds a price that is far from the last trusted one, until an operator accepts it.

The row of a price has the decision about it, and the price that it was compared with. A withheld
price is stored but not published, and no later price is compared with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from market_data_pipeline import ClearError
from market_data_pipeline.market.quote import Quote, by_start, merge
from market_data_pipeline.market.watchlist import TICKER
from market_data_pipeline.market.windows import in_sao_paulo

# Prices hardly ever double or halve between two windows. They do after a split, or if the source
# sends cents instead of reais.
LARGEST_FACTOR = 2.0
LOOK_BACK_SESSIONS = 60
_SPLITS = (2, 3, 4, 5, 8, 10, 20, 25, 50, 100)
ROUND_FACTORS = (*_SPLITS, *(1 / factor for factor in _SPLITS))
# How far a previous close and a price may be from a round factor: a day's move.
_CLOSE_TOLERANCE, _PRICE_TOLERANCE = 1.1, 1.4


def decide(
    stored: Iterable[Quote], new: Iterable[Quote], trusted: Mapping[str, Quote]
) -> tuple[list[Quote], dict[Quote, str]]:
    """The rows to keep of some windows, with a decision about each that is new.

    Args:
        stored: the rows that are already stored.
        new: the rows of this run.
        trusted: the last trusted row of each ticker before the first of the windows (prices in
            BRL); one may be absent.

    Returns:
        The merged rows in the order of time; those that were stored keep their decision. And the
        new rows that are less good than a stored one of the same kind, with the reason for each.
    """
    # Made-up and real prices are not compared.
    last = {(ticker, quote.made_up): quote for ticker, quote in trusted.items()}
    there, asked = by_start(stored), by_start(new)
    kept, left_out = list[Quote](), dict[Quote, str]()
    for start in sorted(there.keys() | asked.keys()):
        before = {(quote.ticker, quote.made_up): quote for quote in there[start]}
        decided = []
        for quote in asked[start]:
            keys = [(symbol, quote.made_up) for symbol in quote.symbols]
            rival = _newest(map(before.get, keys))
            decided.append(_decided(quote, rival, _newest(map(last.get, keys))))
        rows = merge(there[start], decided)
        for quote in set(decided).difference(rows):
            if why := _why_left_out(quote, rows):
                left_out[quote] = why
        last |= {(quote.ticker, quote.made_up): quote for quote in rows if quote.trusted}
        kept += rows
    return kept, left_out


def accept(rows: Sequence[Quote], tickers: Iterable[str]) -> list[Quote]:
    """The rows, with the withheld prices of some tickers accepted.

    Raises:
        ClearError: a text is not a ticker, or has no withheld or accepted row here.
    """
    tickers = set(tickers)
    if not all(map(TICKER.fullmatch, tickers)):  # the text may be a secret
        raise ClearError("`accept` takes tickers such as MGLU3, and nothing else.")
    known = {quote.ticker for quote in rows if quote.decision != "clear"}
    if unknown := sorted(tickers - known):
        withheld = sorted({quote.ticker for quote in rows if not quote.trusted})
        there = f"withheld are {', '.join(withheld)}" if withheld else "no price is withheld there"
        raise ClearError(f"{', '.join(unknown)} cannot be accepted: {there}.")
    return [
        replace(quote, decision="accepted")
        if quote.ticker in tickers and not quote.trusted
        else quote
        for quote in rows
    ]


def explain(quote: Quote) -> str:
    """Why a price is withheld, in words: what it was compared with, and the likely cause."""
    if quote.reference_price is None:
        return f"{quote.ticker} {quote.price:.2f}"
    move = f"{quote.ticker} {quote.price:.2f} after {quote.reference_price:.2f}"
    if quote.previous_close is None:
        return move
    if quote.previous_close == quote.reference_price:
        return f"{move}, the previous close"
    closes = (
        f"previous close {quote.previous_close:.2f} where {quote.reference_price:.2f} was stored"
    )
    if (factor := _round_factor(quote)) is None:
        return f"{move} ({closes})"
    if factor < 1:
        return f"{move}, looks like a 1:{1 / factor:.0f} split: {closes}"
    return f"{move}, looks like a {factor:.0f}:1 reverse split or a unit error: {closes}"


def _why_left_out(quote: Quote, rows: Iterable[Quote]) -> str:
    kept = next(each for each in rows if not set(each.symbols).isdisjoint(quote.symbols))
    other_kind = (kept.made_up, kept.source == "live") != (quote.made_up, quote.source == "live")
    if other_kind:
        return ""
    if not quote.trusted:
        return f"moved too far, so the stored price is kept: {explain(quote)}"
    return f"the price is of {in_sao_paulo(quote.updated_at)}, older than the stored one: not used"


def _newest(rows: Iterable[Quote | None]) -> Quote | None:
    return max(filter(None, rows), key=lambda each: each.window_start, default=None)


def _decided(quote: Quote, there: Quote | None, last: Quote | None) -> Quote:
    """The quote with its decision, given the stored row of its window and the last trusted one."""
    accepted = there if there and there.decision == "accepted" else None
    if accepted and _near(quote.price / accepted.price, LARGEST_FACTOR):
        # The price stays accepted when its window is observed again.
        return replace(quote, reference_price=accepted.reference_price, decision="accepted")
    last = accepted or last
    reference = last.price if last else quote.previous_close
    if reference is None and there and there.trusted:
        reference = there.price
    if reference is None or _near(quote.price / reference, LARGEST_FACTOR):
        return replace(quote, reference_price=reference, decision="clear")
    return replace(quote, reference_price=reference, decision="withheld")


def _round_factor(quote: Quote) -> float | None:
    """The round factor by which both the price and the previous close have moved."""
    assert quote.reference_price is not None
    assert quote.previous_close is not None
    close, price = (each / quote.reference_price for each in (quote.previous_close, quote.price))
    for factor in ROUND_FACTORS:
        if _near(close / factor, _CLOSE_TOLERANCE) and _near(price / factor, _PRICE_TOLERANCE):
            return factor
    return None


def _near(ratio: float, tolerance: float) -> bool:
    """Whether a ratio of two prices is between 1/`tolerance` and `tolerance`."""
    return 1 / tolerance <= ratio <= tolerance
