"""The quotes of the watchlist, one window at a time."""

from collections import Counter
from collections.abc import Callable
from math import ceil
from time import monotonic

import dagster as dg
import pandas as pd

from market_data_pipeline import clock
from market_data_pipeline.asset_keys import QUOTES
from market_data_pipeline.assets.checks import QUOTES_CHECKS, check_quotes
from market_data_pipeline.assets.common import (
    GROUP,
    ONE_RUN_A_RANGE,
    OWNERS,
    WINDOWS,
    failing_clearly,
    windows_of,
)
from market_data_pipeline.assets.metadata import (
    column_schema,
    describe_run,
    describe_window,
    failures_of,
)
from market_data_pipeline.assets.moves import moves, prices_before, record_of_doubts
from market_data_pipeline.brapi.client import Progress
from market_data_pipeline.brapi.collect import Collection, collect_history, collect_live
from market_data_pipeline.brapi.errors import BrapiError
from market_data_pipeline.pacing import Quota
from market_data_pipeline.parquet_io import QuotesParquetIOManager
from market_data_pipeline.quota import last_recorded, measured
from market_data_pipeline.quote import quotes_frame
from market_data_pipeline.resources import BrapiResource
from market_data_pipeline.watchlist import load_watchlist
from market_data_pipeline.windows import Window

SECONDS_BETWEEN_PROGRESS_LINES = 5.0


@dg.asset(
    key=QUOTES,
    partitions_def=WINDOWS.partitions,
    backfill_policy=ONE_RUN_A_RANGE,
    pool="brapi",
    io_manager_key="quotes_io_manager",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"brapi", "pandas", "parquet"},
    dagster_type=dg.PythonObjectDagsterType(pd.DataFrame),
    check_specs=QUOTES_CHECKS,
    metadata={"dagster/column_schema": column_schema()},
)
def quotes(
    context: dg.AssetExecutionContext,
    brapi: BrapiResource,
    quotes_io_manager: dg.ResourceParam[QuotesParquetIOManager],
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The price of every paper of the watchlist as of the window's end.

    The live window (the last one that has ended) takes them from Brapi's quote endpoint. Any
    earlier window takes them from the price history, and where the plan has no bar for a window,
    the window has no row. A ticker that fails is reported and costs no other.
    """
    windows = windows_of(context)
    with failing_clearly():
        papers = load_watchlist()
        tickers = [paper.ticker for paper in papers]
        collections, quota = _collect(context, brapi, windows, tickers)
        failures = failures_of(collections)
        if any(collection.requests for collection in collections):
            _report(context, tickers, failures)
        else:
            context.log.info("Brapi was asked nothing: it has no bar for any of these windows.")
        _demand_enough(tickers, failures, brapi.min_answered_share)
    rows = [quote for collection in collections for quote in collection.quotes]
    rows.sort(key=lambda quote: quote.window_start)  # stable: the watchlist's order remains
    quoted = Counter(quote.window_start for quote in rows)
    before = prices_before(context.instance, quotes_io_manager, windows[0])
    implausible = [move for move in moves(rows, before.trusted) if not move.plausible]
    for collection in collections:
        for window in collection.windows:
            described = describe_window(window, quoted[window.start], collection)
            described |= record_of_doubts(window, implausible)
            context.add_asset_metadata(described, partition_key=window.key)
    return dg.MaterializeResult(
        value=quotes_frame(rows),
        metadata=describe_run(windows, rows, collections, papers, quota, before.stored),
        check_results=check_quotes(
            quoted, collections, implausible, brapi.effective_plan.delay_minutes
        ),
    )


def _collect(
    context: dg.AssetExecutionContext,
    brapi: BrapiResource,
    windows: list[Window],
    tickers: list[str],
) -> tuple[list[Collection], Quota | None]:
    """One collection for the past windows and one for the live one, whichever are asked for.

    And what is left of the quota, if that is known.
    """
    now = clock.utc_now()
    live = WINDOWS.live(now)
    past = [window for window in windows if window != live]
    collections = []
    cost = 0
    with brapi.client() as client:
        # The live one first: it does not stay live for long.
        if live is not None and live in windows:
            on_progress = _progress_log(context, f"live window {live.key}")
            collections.append(collect_live(client, tickers, live, WINDOWS, on_progress))
            cost = client.account.spent
        if past:
            on_progress = _progress_log(context, f"{len(past)} past windows")
            collections.append(collect_history(client, tickers, past, WINDOWS, now, on_progress))
        quota = measured(client, last_recorded(context.instance, now), cost, now)
    return collections, quota


def _progress_log(context: dg.AssetExecutionContext, what: str) -> Callable[[Progress], None]:
    """Logs how far a fetch is, every few seconds."""
    last_line = monotonic()

    def log(progress: Progress) -> None:
        nonlocal last_line
        if monotonic() - last_line >= SECONDS_BETWEEN_PROGRESS_LINES:
            last_line = monotonic()
            context.log.info(
                f"{what}: {progress.done} of {progress.total} tickers done, "
                f"{progress.failed} failed, about {progress.seconds_left:.0f} s left"
            )

    return log


def _report(
    context: dg.AssetExecutionContext, tickers: list[str], failures: dict[str, str]
) -> None:
    for ticker, reason in failures.items():
        context.log.warning(f"{ticker} failed: {reason}")
    context.log.info(
        f"Ingestion completed: {len(tickers) - len(failures)} succeeded, {len(failures)} failed"
    )


def _demand_enough(tickers: list[str], failures: dict[str, str], share: float) -> None:
    """Raises a BrapiError if too few tickers were answered to go on."""
    answered = len(tickers) - len(failures)
    needed = max(1, ceil(share * len(tickers)))
    if answered < needed:
        reasons = list(failures.values())
        commonest = max(set(reasons), key=reasons.count)
        raise BrapiError(
            f"Brapi answered for {answered} of {len(tickers)} tickers, at least {needed} must be; "
            f"most often because: {commonest}. Nothing was stored; materialize the window again."
        )
