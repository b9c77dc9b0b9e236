"""What a materialization says about itself: numbers that the UI plots, and tables to read."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, get_args

from market_data_pipeline.brapi.bars import Gap
from market_data_pipeline.brapi.observe import Observation
from market_data_pipeline.brapi.pacing import Quota
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import Window
from market_data_pipeline.runs.tables import table

# Why a ticker has no row in a window.
REASONS = (*get_args(Gap), "failed")
LEGEND = {
    "no trade": "not traded in the window",
    "plan": "the plan of the token has no bar for this window",
    "too far back": "the plan's history begins later",
    "off the grid": "Brapi's bars do not start where the window starts",
    "too early": "the window ended so recently that its bar may be incomplete",
    "failed": "Brapi gave no usable answer",
}


def failures_of(observations: Sequence[Observation]) -> dict[str, str]:
    """The tickers that Brapi gave nothing for, and why."""
    return {ticker: why for each in observations for ticker, why in each.failures.items()}


def missing_in(window: Window, observation: Observation) -> dict[str, list[str]]:
    """The tickers without a row in one of the observed windows, by the reason why."""
    gaps = observation.gaps.get(window, {})
    missing: dict[str, list[str]] = {reason: [] for reason in REASONS}
    for ticker, reason in gaps.items():
        missing[reason].append(ticker)
    missing["failed"] = [ticker for ticker in observation.failures if ticker not in gaps]
    return missing


def describe_window(
    window: Window, rows: Sequence[Quote], observation: Observation, tickers: Sequence[str]
) -> dict[str, Any]:
    """What one window holds, and lacks of the watchlist's tickers: numbers that the UI plots."""
    covered = {quote.requested_ticker for quote in rows}.intersection(tickers)
    missing = missing_in(window, observation)
    live = [quote for quote in rows if quote.source == "live"]
    described: dict[str, Any] = {
        "dagster/partition_row_count": len(rows),
        "quotes": len(rows),
        "coverage_percent": round(len(covered) / len(tickers) * 100, 1),
        "withheld": sum(not quote.trusted for quote in rows),
        **{f"tickers_without_row ({why})": len(each) for why, each in missing.items() if each},
    }
    if why := "; ".join(f"{each}: {LEGEND[each]}" for each in missing if missing[each]):
        described["without_row"] = why
    if live:
        latest = max(quote.observed_at for quote in live) - window.end
        described["observed_minutes_after_end"] = _minutes(latest)
        oldest = max(quote.observed_at - quote.updated_at for quote in live)
        described["oldest_quote_minutes"] = _minutes(oldest)
    return described


def describe_run(observations: Sequence[Observation], quota: Quota | None) -> dict[str, Any]:
    """What the run asked and what it cost.

    It stands on every window of a range, so what grows with the range stays out of it.
    """
    failures = failures_of(observations)
    metadata: dict[str, Any] = {
        "failures": len(failures),
        "requests": sum(each.requests for each in observations),
        "fetch_seconds": round(sum(each.seconds for each in observations), 1),
    }
    if quota:
        metadata["quota_left"] = quota.left
        # The day that Brapi counts from, which begins at midnight UTC.
        metadata["quota"] = f"{quota.left:,} of {quota.limit:,} until {quota.until:%-d %b}"
    if failures:
        metadata["failed"] = table(
            [{"ticker": ticker, "reason": why} for ticker, why in failures.items()]
        )
    return metadata


def _minutes(span: timedelta) -> float:
    return round(span.total_seconds() / 60, 1)
