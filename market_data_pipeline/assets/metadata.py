"""What a materialization says about itself: numbers that the UI plots, and tables to read."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import dagster as dg

from market_data_pipeline.brapi.bars import Gap
from market_data_pipeline.brapi.collect import Collection
from market_data_pipeline.pacing import Quota
from market_data_pipeline.quota import quota_metadata
from market_data_pipeline.quote import COLUMNS, DESCRIPTIONS, Quote
from market_data_pipeline.watchlist import Paper
from market_data_pipeline.windows import Window

# Why a ticker has no row in a window.
REASONS = (*get_args(Gap), "failed")


def column_schema(extra: Mapping[str, tuple[str, str]] | None = None) -> dg.TableSchema:
    """The columns of a quote, and those of `extra` (name: type and description)."""
    columns = {name: (dtype, DESCRIPTIONS[name]) for name, dtype in COLUMNS.items()}
    return dg.TableSchema(
        [
            dg.TableColumn(name, dtype, description=description)
            for name, (dtype, description) in (columns | dict(extra or {})).items()
        ]
    )


def failures_of(collections: Sequence[Collection]) -> dict[str, str]:
    """The tickers that Brapi gave nothing for, and why."""
    return {ticker: why for each in collections for ticker, why in each.failures.items()}


def missing_in(window: Window, collection: Collection) -> dict[str, list[str]]:
    """The tickers without a row in one of the collection's windows, by the reason why."""
    gaps = collection.gaps.get(window, {})
    missing: dict[str, list[str]] = {reason: [] for reason in REASONS}
    for ticker, reason in gaps.items():
        missing[reason].append(ticker)
    missing["failed"] = [ticker for ticker in collection.failures if ticker not in gaps]
    return missing


def describe_window(window: Window, rows: int, collection: Collection) -> dict[str, Any]:
    """What one window holds and what it lacks."""
    counts = {reason: len(tickers) for reason, tickers in missing_in(window, collection).items()}
    return {
        "dagster/partition_row_count": rows,
        "quotes": rows,
        **{f"tickers_without_row ({reason})": count for reason, count in counts.items() if count},
    }


def describe_run(
    windows: Sequence[Window],
    quotes: Sequence[Quote],
    collections: Sequence[Collection],
    papers: Sequence[Paper],
    quota: Quota | None,
    before: Mapping[str, float],
) -> dict[str, Any]:
    """What the run asked and what it cost; for a single window also its tables.

    It stands on every window of a range, so what grows with the range stays out of it.
    """
    failures = failures_of(collections)
    metadata: dict[str, Any] = {
        "failures": len(failures),
        "requests": sum(each.requests for each in collections),
        "fetch_seconds": round(sum(each.seconds for each in collections), 3),
        "windows_in_run": len(windows),
    }
    if quota:
        metadata |= quota_metadata(quota)
    if failures:
        metadata["failed"] = table(
            [{"ticker": ticker, "reason": why} for ticker, why in failures.items()]
        )
    if len(windows) == 1 and quotes:
        oldest = max(quote.observed_at - quote.updated_at for quote in quotes)
        metadata["oldest_quote_minutes"] = round(oldest.total_seconds() / 60, 1)
        metadata["prices"] = _prices(quotes, papers, before)
    return metadata


def _prices(
    quotes: Sequence[Quote], papers: Sequence[Paper], before: Mapping[str, float]
) -> dg.TableMetadataValue:
    segments = {paper.ticker: paper.segment for paper in papers}
    return table(
        [
            {
                "ticker": quote.ticker,
                "name": quote.short_name or "",
                "segment": segments.get(quote.requested_ticker, ""),
                "price": quote.price,
                "change_percent": _change(quote.price, before.get(quote.ticker)),
                "volume": quote.volume,
                "updated_at": quote.updated_at.isoformat(timespec="seconds"),
            }
            for quote in quotes
        ]
    )


def _change(price: float, before: float | None) -> float | None:
    """In percent, since the last window before that is stored."""
    return round((price / before - 1) * 100, 2) if before else None


def table(records: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """A table of the UI; every record has the same keys."""
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records])
