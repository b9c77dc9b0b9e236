"""What the assets have in common.

Dagster treats assets with the same key as one asset, even in different code locations. Code
locations that share an instance therefore need an ASSET_KEY_PREFIX each.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
from dagster_mongo import DagsterMongoError

from market_data_pipeline import ClearError
from market_data_pipeline.market.windows import TradingWindows, Window
from market_data_pipeline.runs.run_history import ends_of, partitions_in_words
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

WINDOWS = TradingWindows(settings().sync_interval_minutes, settings().partitions_start)
GROUP = "market_data"
OWNERS = ["team:market-data"]
# A range is one run: a request covers all of its windows.
ONE_RUN_A_RANGE = dg.BackfillPolicy.single_run()

Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext

# Connects to what a sink writes to; returns what is wrong and what to do, or an empty text.
Connect = Callable[[], str]


def partitions_of(context: Context) -> list[str]:
    """The keys of the run's partitions, in the order of time.

    Raises:
        Failure: there is none, or the run's partition, or the last one of its range, does not
            exist.
    """
    ends = ends_of(context.run)
    try:
        keys = list(context.partition_keys) if ends else []
    except Exception:  # Dagster raises many kinds of them
        keys = []
    # Where no partition starts, Dagster takes the one that follows.
    if not keys or not all(ends[0] <= key <= ends[-1] for key in keys):
        raise dg.Failure(
            f"There is no partition{partitions_in_words(context.run)}: choose one of the asset's, "
            "or a range that starts before its end and ends with one.",
            allow_retries=False,
        )
    return keys


def has_windows(repository: dg.RepositoryDefinition, asset: dg.AssetKey) -> bool:
    """Whether the partitions of an asset are the windows; they may be sessions."""
    return repository.asset_graph.get(asset).partitions_def == WINDOWS.partitions


def windows_of(context: Context) -> list[Window]:
    """The windows of the run's partitions, in the order of time. Raises as `partitions_of`."""
    return [WINDOWS.from_key(key) for key in partitions_of(context)]


@contextmanager
def failing_clearly() -> Iterator[None]:
    """Ends the step with the one sentence of an error that says what to do."""
    try:
        yield
    except (ClearError, DagsterMongoError) as error:
        raise dg.Failure(str(error), allow_retries=False) from None
