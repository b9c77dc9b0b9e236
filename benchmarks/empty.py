"""Three chained assets that do nothing, with the partitions and the executor of the pipeline."""

import dagster as dg

from market_data_pipeline.windows import TradingWindows

WINDOWS = TradingWindows()
FIRST = WINDOWS.of_session(WINDOWS.first_day)[0]


@dg.asset(partitions_def=WINDOWS.partitions)
def first() -> None:
    """Does nothing."""


@dg.asset(partitions_def=WINDOWS.partitions, deps=[first])
def second() -> None:
    """Does nothing."""


@dg.asset(partitions_def=WINDOWS.partitions, deps=[second])
def third() -> None:
    """Does nothing."""


job = dg.define_asset_job("market_data_job")


@dg.schedule(
    job=job,
    cron_schedule="1-59/2 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def every_other_minute() -> dg.RunRequest:
    """A run of one and the same window."""
    return dg.RunRequest(partition_key=FIRST.key)


defs = dg.Definitions(
    assets=[first, second, third],
    jobs=[job],
    schedules=[every_other_minute],
    executor=dg.in_process_executor,
)
