"""Three chained assets that do nothing, with the partitions and the executor of the pipeline.

And three more that also have as many checks, each of which is an event to plan and one to store.
"""

from collections.abc import Iterator

import dagster as dg

from market_data_pipeline.market.windows import TradingWindows

WINDOWS = TradingWindows()
FIRST = WINDOWS.of_session(WINDOWS.first_day)[0]


def asset(name: str, deps: list[str], checks: int) -> dg.AssetsDefinition:
    """An asset whose checks pass."""
    specs = [dg.AssetCheckSpec(f"check_{number}", asset=name) for number in range(checks)]

    @dg.asset(name=name, deps=deps, partitions_def=WINDOWS.partitions, check_specs=specs)
    def nothing() -> dg.MaterializeResult:  # type: ignore[type-arg]
        passed = [dg.AssetCheckResult(check_name=spec.name, passed=True) for spec in specs]
        return dg.MaterializeResult(check_results=passed)

    return nothing


def chain(prefix: str, checks: tuple[int, ...]) -> Iterator[dg.AssetsDefinition]:
    """Assets with so many checks, each downstream of the one before."""
    deps: list[str] = []
    for number, count in enumerate(checks):
        yield asset(f"{prefix}_{number}", deps, count)
        deps = [f"{prefix}_{number}"]


def in_every_sixth_minute(job: str, first: int) -> dg.ScheduleDefinition:
    """A schedule that runs a job for one and the same window."""

    @dg.schedule(
        name=f"{job}_schedule",
        job_name=job,
        cron_schedule=f"{first}-59/6 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def scheduled() -> dg.RunRequest:
        return dg.RunRequest(partition_key=FIRST.key)

    return scheduled


EMPTY, CHECKED = [*chain("empty", (0, 0, 0))], [*chain("checked", (6, 1, 1))]

defs = dg.Definitions(
    assets=[*EMPTY, *CHECKED],
    jobs=[dg.define_asset_job("empty", EMPTY), dg.define_asset_job("checked", CHECKED)],
    schedules=[in_every_sixth_minute("empty", 1), in_every_sixth_minute("checked", 4)],
    executor=dg.in_process_executor,
)
