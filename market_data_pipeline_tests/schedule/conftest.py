"""The schedule as the daemon asks it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.events import AssetMaterializationPlannedData
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat

from market_data_pipeline.definitions import defs
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE
from market_data_pipeline.operation.automation import every_window
from market_data_pipeline_tests.conftest import SetClock, at

Tick = Callable[..., dg.RunRequest | str]


@pytest.fixture
def tick(instance: dg.DagsterInstance, set_clock: SetClock) -> Tick:
    """What the schedule does at a tick: a run request, or the reason for none.

    It takes the time of the tick in São Paulo, and what the clock shows then: a second more unless
    `now` says otherwise.
    """

    def evaluate(scheduled: str, now: datetime | None = None) -> dg.RunRequest | str:
        set_clock(now or at(scheduled) + timedelta(seconds=1))
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=at(scheduled).astimezone(EXCHANGE_TIMEZONE),
            repository_def=defs.get_repository_def(),
        )
        data = every_window.evaluate_tick(context)
        if not data.run_requests:
            assert data.skip_message
            return data.skip_message
        (request,) = data.run_requests
        return request

    return evaluate


def report_daemon(instance: dg.DagsterInstance, name: str = "daemon") -> None:
    """As if a daemon with this id had reported that its sensors run."""
    heartbeat = DaemonHeartbeat(datetime.now(UTC).timestamp(), "SENSOR", name, [])
    instance.add_daemon_heartbeat(heartbeat)


def unfinished_run(
    instance: dg.DagsterInstance, asset: str, key: str, **tags: str
) -> dg.DagsterRun:
    """A run of one asset for a window that has started."""
    tags = {"dagster/partition": key, **tags}
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags=tags)
    planned = AssetMaterializationPlannedData(dg.AssetKey(asset), partition=key)
    event = dg.DagsterEvent.build_asset_materialization_planned_event("job", asset, planned)
    instance.report_dagster_event(event, run.run_id)
    return run
