"""What a materialization says about itself: numbers that the UI plots, and tables to read."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, get_args

import dagster as dg

from market_data_pipeline.bars import Gap
from market_data_pipeline.observe import Observation
from market_data_pipeline.pacing import Quota
from market_data_pipeline.quote import COLUMNS, Quote
from market_data_pipeline.watchlist import Instrument
from market_data_pipeline.windows import EXCHANGE_TIMEZONE, Window

# Why a ticker has no row in a window.
REASONS = (*get_args(Gap), "failed")


def column_schema() -> dg.TableSchema:
    """The columns of a quote."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, kind, description=description)
            for name, (kind, description) in COLUMNS.items()
        ]
    )


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
    window: Window,
    rows: Sequence[Quote],
    observation: Observation,
    instruments: Sequence[Instrument],
) -> dict[str, Any]:
    """What one window holds and what it lacks."""
    missing = missing_in(window, observation)
    live = [quote for quote in rows if quote.source == "live"]
    described: dict[str, Any] = {
        "dagster/partition_row_count": len(rows),
        "quotes": len(rows),
        "withheld": sum(not quote.trusted for quote in rows),
        **{f"tickers_without_row ({why})": len(each) for why, each in missing.items() if each},
    }
    if live:
        latest = max(quote.observed_at for quote in live) - window.end
        described["observed_minutes_after_end"] = _minutes(latest)
        oldest = max(quote.observed_at - quote.updated_at for quote in live)
        described["oldest_quote_minutes"] = _minutes(oldest)
    if rows:
        described["prices"] = _prices(rows, instruments)
    return described


def describe_run(
    windows: Sequence[Window], observations: Sequence[Observation], quota: Quota | None
) -> dict[str, Any]:
    """What the run asked and what it cost.

    It stands on every window of a range, so what grows with the range stays out of it.
    """
    failures = failures_of(observations)
    metadata: dict[str, Any] = {
        "failures": len(failures),
        "requests": sum(each.requests for each in observations),
        "fetch_seconds": round(sum(each.seconds for each in observations), 1),
        "windows_in_run": len(windows),
    }
    if quota:
        until = f"{quota.until.astimezone(EXCHANGE_TIMEZONE):%-d %b %Y %H:%M}"
        metadata["quota_left"] = quota.left
        metadata["quota"] = f"{quota.left:,} of {quota.limit:,} requests left until {until}"
    if failures:
        metadata["failed"] = table(
            [{"ticker": ticker, "reason": why} for ticker, why in failures.items()]
        )
    return metadata


def _minutes(span: timedelta) -> float:
    return round(span.total_seconds() / 60, 1)


def _prices(rows: Sequence[Quote], instruments: Sequence[Instrument]) -> dg.TableMetadataValue:
    segments = {instrument.ticker: instrument.segment for instrument in instruments}
    order = {instrument.ticker: number for number, instrument in enumerate(instruments)}
    return table(
        [
            {
                "ticker": quote.ticker,
                "name": quote.short_name or "",
                "segment": segments.get(quote.requested_ticker, ""),
                "price": quote.price,
                "reference_price": quote.reference_price,
                "change_percent": _change(quote.price, quote.reference_price),
                "since_previous_close_percent": _change(quote.price, quote.previous_close),
                "decision": quote.decision,
                "volume": quote.volume,
                "updated_at": f"{quote.updated_at.astimezone(EXCHANGE_TIMEZONE):%Y-%m-%d %H:%M:%S}",
            }
            for quote in sorted(rows, key=lambda quote: order.get(quote.requested_ticker, 0))
        ]
    )


def _change(price: float, before: float | None) -> float | None:
    """In percent; None where there is nothing to compare with."""
    return round((price / before - 1) * 100, 2) if before else None


def table(records: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """A table of the UI; every record has the same keys."""
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records])
