"""What the assets of a window have in common."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster_mongo import DagsterMongoError

from market_data_pipeline.market.errors import ClearError
from market_data_pipeline.market.windows import Window, trading_windows

# At every start Dagster warns that runs of a range are a preview. Tests check what they do.
for category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=category, module=r"dagster|market_data_pipeline")

WINDOWS = trading_windows()
GROUP = "market_data"
OWNERS = ["team:market-data"]
# A range is one run: a request covers all of its windows.
ONE_RUN_A_RANGE = dg.BackfillPolicy.single_run()


def windows_of(context: dg.AssetExecutionContext) -> list[Window]:
    """The windows of the run's partitions, in the order of time."""
    return [WINDOWS.from_key(key) for key in context.partition_keys]


@contextmanager
def failing_clearly() -> Iterator[None]:
    """Ends the step with the one sentence of an error that says what to do."""
    try:
        yield
    except (ClearError, DagsterMongoError) as error:
        raise dg.Failure(str(error), allow_retries=False) from None
