"""What the assets have in common.

Dagster treats assets with the same key as one asset, even in different code locations. Code
locations that share an instance therefore need an ASSET_KEY_PREFIX each.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date

import dagster as dg
from dagster_mongo import DagsterMongoError

from market_data_pipeline import ClearError
from market_data_pipeline.market.windows import Window, trading_windows
from market_data_pipeline.runs.run_history import covers, windows_of_run
from market_data_pipeline.settings import settings

# At every start Dagster warns that runs of a range are a preview. Tests check what they do.
for category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=category, module=r"dagster|market_data_pipeline")

PREFIX = settings().asset_key_prefix
_path = [PREFIX] if PREFIX else []
QUOTES = dg.AssetKey([*_path, "quotes"])
PRICE_HISTORY = dg.AssetKey([*_path, "mongo_price_history"])
PUBLICATION = dg.AssetKey([*_path, "kafka_publication"])
SESSION_REPORT = dg.AssetKey([*_path, "session_report"])

WINDOWS = trading_windows()
GROUP = "market_data"
OWNERS = ["team:market-data"]
# A range is one run: a request covers all of its windows.
ONE_RUN_A_RANGE = dg.BackfillPolicy.single_run()

Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext

# Connects to what a sink writes to; returns what is wrong and what to do, or an empty text.
Connect = Callable[[], str]


def partitions_of(context: Context) -> list[str]:
    """The keys of the run's partitions, in the order of time; none if it was launched without."""
    return list(context.partition_keys) if windows_of_run(context.run) else []


def sessions_of(context: Context) -> list[date]:
    """The days of the run's partitions, in their order.

    Raises:
        Failure: there is none.
    """
    days = [date.fromisoformat(key) for key in partitions_of(context)]
    if not days:
        raise dg.Failure(
            f"There is no session{windows_of_run(context.run)}: choose a day, or a range of days.",
            allow_retries=False,
        )
    return days


def windows_of(context: Context) -> list[Window]:
    """The windows of the run's partitions, in the order of time.

    Raises:
        Failure: the partition, or the last one of a range, is not a window; or there is none.
    """
    windows = [WINDOWS.from_key(key) for key in partitions_of(context)]
    # Where no window starts, Dagster takes the one that follows.
    if not windows or not all(covers(context.run, window) for window in windows):
        raise dg.Failure(
            f"There is no window{windows_of_run(context.run)}: choose the key of a window, or a "
            "range that starts before its end and ends with a window.",
            allow_retries=False,
        )
    return windows


@contextmanager
def failing_clearly() -> Iterator[None]:
    """Ends the step with the one sentence of an error that says what to do."""
    try:
        yield
    except (ClearError, DagsterMongoError) as error:
        raise dg.Failure(str(error), allow_retries=False) from None
