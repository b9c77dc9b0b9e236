"""Whether every live quote is on the topic."""

from collections.abc import Mapping, Sequence

import dagster as dg

from market_data_pipeline.market.quote import Quote, by_window
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window
from market_data_pipeline.publication.publications import Sent, missing
from market_data_pipeline.runs.checks import ERROR, NAMED, of_window, some
from market_data_pipeline.runs.common import PUBLICATION, WINDOWS

EVERY_QUOTE_DELIVERED = dg.AssetCheckSpec(
    "every_quote_delivered",
    asset=PUBLICATION,
    description="The broker acknowledged an event for every live quote of the window. If not: "
    "materialize `kafka_publication` alone while the window is live.",
)


def every_quote_delivered(
    windows: Sequence[Window],
    rows: Sequence[Quote],
    sent: Mapping[Window, Sequence[Sent]],
    published: int,
) -> dg.AssetCheckResult:
    """Whether every live quote of some windows is on the topic.

    Args:
        windows: the windows of the run.
        rows: what is stored of them.
        sent: the publications of each, by this run and by earlier ones.
        published: how many events this run sent.
    """
    grouped = by_window(rows)
    observed = {quote.window for quote in rows if quote.source == "live"}
    never = [each for each in windows if each in observed and not sent[each]]
    later = [
        (each, tickers)
        for each in windows
        if sent[each] and (tickers := missing(grouped[each], sent[each]))
    ]
    withheld = [each.ticker for each in rows if not each.trusted and each.window in observed]
    lacking = [
        f"{some([_never_sent(window) for window in never])}." if never else "",
        f"{some([_sent_without(*each) for each in later])}." if later else "",
    ]
    well = f"The broker acknowledged all {published} events."
    if not published:
        well = (
            "Every live quote was already sent."
            if observed
            else "There were no live quotes to send."
        )
    held_back = f" Withheld, as their prices have moved too far: {some(withheld)}."
    result = dg.AssetCheckResult(
        check_name=EVERY_QUOTE_DELIVERED.name,
        passed=not any(lacking),
        severity=ERROR,
        description=(" ".join(filter(None, lacking)) or well) + (held_back if withheld else ""),
        metadata={
            "published": published,
            "withheld": withheld,
            NAMED: sorted({ticker for _, tickers in later for ticker in tickers}),
        },
    )
    return of_window(result, windows)


def _never_sent(window: Window) -> str:
    return f"{window.key} was never sent ({_live_until(window)})"


def _sent_without(window: Window, tickers: Sequence[str]) -> str:
    return (
        f"{window.key} was sent before all of its quotes were stored; missing on the topic: "
        f"{some(tickers)} ({_live_until(window)})"
    )


def _live_until(window: Window) -> str:
    over = WINDOWS.live_until(window).astimezone(EXCHANGE_TIMEZONE)
    return f"it was live until {over:%H:%M}"


def not_delivered(windows: Sequence[Window], window: Window, reason: str) -> dg.AssetCheckResult:
    """What `every_quote_delivered` says when a window was not published whole."""
    result = dg.AssetCheckResult(
        check_name=EVERY_QUOTE_DELIVERED.name,
        passed=False,
        severity=ERROR,
        description=f"{window.key} is not on the topic: {reason}",
    )
    return of_window(result, windows)
