"""Whether our closes and the sessions of our calendar are those of B3."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from math import isclose
from typing import Any

import dagster as dg

from market_data_pipeline.market.price_guard import ROUND_FACTORS
from market_data_pipeline.market.quote import SANDBOX, Quote
from market_data_pipeline.market.windows import Window, close_of, midnight
from market_data_pipeline.runs.results import ERROR, some, verdict
from market_data_pipeline.storage.official_close import OFFICIAL_CLOSE, Closes

CLOSES_MATCH = dg.AssetCheckSpec(
    "closes_match",
    asset=OFFICIAL_CLOSE,
    description="The last trusted price of each instrument in a session is B3's close, or was "
    "observed before the close. If not: use B3's; the text says what ours looks like.",
)
CALENDAR_MATCHES = dg.AssetCheckSpec(
    "calendar_matches",
    asset=OFFICIAL_CLOSE,
    description="B3 has a file for each session of the calendar, and for no other day. If not: "
    "upgrade this package, or make its calendar anew with `make calendar`.",
)
EXACT = 5e-7  # relative: how far a float of 32 bits may be from the cent that it stands for
# The closing call of funds and BDRs ends later than that of stocks.
LATER, FUNDS = timedelta(minutes=15), ("CI", "DR")
LARGEST_DIVIDEND = 0.15
OUTCOMES = ("equal", "early", "wrong", "volume", "lacking")


def compare(
    ours: Mapping[str, Quote], closes: Closes, found: dict[str, list[str]], day: str
) -> None:
    """Compares our last trusted prices (by symbol) with B3's closes; adds texts to `found`.

    Each price is under `equal`, `early` (observed before the close) or `wrong`; an impossible
    volume, above B3's of the whole day, under `volume`; a wrong ticker under `named`; one that B3
    has no record of under `lacking`.
    """
    lacking = {each.ticker for each in ours.values() if closes.keys().isdisjoint(each.symbols)}
    found["lacking"] += [f"{day}{ticker}" for ticker in sorted(lacking)]
    for ticker, record in closes.items():
        quote = ours.get(ticker)
        if quote is None or quote.made_up != (record["origin"] == SANDBOX):
            continue
        outcome, text = _judged(quote, record, closes)
        found[outcome].append(f"{day}{ticker} {text}")
        found["named"] += [ticker] if outcome == "wrong" else []
        volume, shares = quote.volume or 0, record["volume"]
        looks = ", looks like BRL" * isclose(volume, record["volume_brl"], rel_tol=0.05)
        if volume > 1.001 * shares or looks:
            found["volume"].append(f"{day}volume of {ticker} {volume:,} for {shares:,}{looks}")


def closes_match(
    windows: Sequence[Window], found: Mapping[str, Sequence[str]]
) -> dg.AssetCheckResult:
    """The result of the check, from what `compare` has found."""
    equal, early, wrong, volume, lacking = (found.get(each, []) for each in OUTCOMES)
    compared = len(equal) + len(early) + len(wrong)
    parts = [
        f"{len(equal)} of {compared} closes match" if compared else "There is no price of ours",
        some(wrong, "; "),
        f"observed before the close: {some(early)}" if early else "",
        some(volume, "; "),
        f"B3 has no record of {some(lacking)}" if lacking else "",
    ]
    said, named = "; ".join(filter(None, parts)), {*found.get("named", [])}
    return verdict(CLOSES_MATCH, windows, said if wrong else "", said, ERROR, named)


def calendar_matches(
    windows: Sequence[Window], unexpected: Sequence[str], missing: Sequence[str]
) -> dg.AssetCheckResult:
    """The result of the check, from closed days with a file and sessions without one."""
    parts = [
        f"B3 has a file for {some(unexpected)}, closed by the calendar" if unexpected else "",
        f"B3 has no usable file for {some(missing)}, sessions by the calendar" if missing else "",
    ]
    well = "B3's sessions are those of the calendar."
    return verdict(CALENDAR_MATCHES, windows, "; ".join(filter(None, parts)), well, ERROR)


def _judged(quote: Quote, record: Mapping[str, Any], closes: Closes) -> tuple[str, str]:
    price, close, day = quote.price, record["close"], quote.window.day
    if isclose(price, close, rel_tol=EXACT):
        return "equal", ""
    end = close_of(day) + (LATER if record["kind"].startswith(FUNDS) else timedelta())
    early = (end - quote.updated_at) / timedelta(minutes=1)
    traded = record["low"] * (1 - EXACT) <= price <= record["high"] * (1 + EXACT)
    if early > 0 and quote.source != "daily" and (traded or quote.updated_at < midnight(day)):
        return "early", f"{early:.0f} min"
    decimals = 2 if record["quote_factor"] == 1 else 6
    looks = _looks_like(price, close, closes, quote.source)
    return "wrong", f"{price:.{decimals}f} instead of {close:.{decimals}f}{looks}"


def _looks_like(price: float, close: float, closes: Closes, source: str) -> str:
    if any(isclose(price, close * factor, rel_tol=1e-3) for factor in (100, 1000, 0.01, 0.001)):
        return ", looks like a unit error"
    for factor in ROUND_FACTORS:
        if abs(price - close * factor) <= 0.00501:  # ours is rounded to cents
            return f", looks adjusted by {max(factor, 1 / factor):.0f}"
    if same := [
        ticker for ticker, each in closes.items() if isclose(price, each["close"], rel_tol=EXACT)
    ]:
        return f", the close of {same[0]}"
    if source != "live" and 0 < close - price <= LARGEST_DIVIDEND * close:
        return f", looks adjusted for a dividend of {close - price:.2f}"
    return ""
