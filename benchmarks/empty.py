"""Three chained assets that do nothing, with the partitions and the executor of the pipeline."""

import dagster as dg

from market_data_pipeline.windows import trading_windows

WINDOWS = trading_windows()


@dg.asset(partitions_def=WINDOWS.partitions)
def first() -> None:
    """Does nothing."""


@dg.asset(partitions_def=WINDOWS.partitions, deps=[first])
def second() -> None:
    """Does nothing."""


@dg.asset(partitions_def=WINDOWS.partitions, deps=[second])
def third() -> None:
    """Does nothing."""


defs = dg.Definitions(
    assets=[first, second, third],
    jobs=[dg.define_asset_job("market_data_job")],
    executor=dg.in_process_executor,
)
