"""What the three assets have in common."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster_mongo import DagsterMongoError

from market_data_pipeline.brapi.errors import BrapiError
from market_data_pipeline.kafka.errors import PublicationError
from market_data_pipeline.price_guard import AcceptanceError
from market_data_pipeline.quote_store import (
    MadeUpPricesError,
    MissingQuotesError,
    QuoteStoreError,
)
from market_data_pipeline.watchlist import WatchlistError
from market_data_pipeline.windows import Window, trading_windows

# Runs of a whole range are a preview in Dagster; what they do is held by tests, so that every start
# need not warn of them.
for category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=category, module=r"dagster|market_data_pipeline")

WINDOWS = trading_windows()
GROUP = "market_data"
OWNERS = ["team:market-data"]
# A range is one run: a request covers all of its windows.
ONE_RUN_A_RANGE = dg.BackfillPolicy.single_run()

# Errors whose text is one sentence that says what to do.
CLEAR = (
    AcceptanceError,
    BrapiError,
    DagsterMongoError,
    MadeUpPricesError,
    MissingQuotesError,
    PublicationError,
    QuoteStoreError,
    WatchlistError,
)


def windows_of(context: dg.AssetExecutionContext) -> list[Window]:
    """The windows of the run's partitions, in the order of time."""
    return [WINDOWS.from_key(key) for key in context.partition_keys]


@contextmanager
def failing_clearly() -> Iterator[None]:
    """Ends the step with the one sentence of an error that says what to do."""
    try:
        yield
    except CLEAR as error:
        raise dg.Failure(str(error), allow_retries=False) from None
