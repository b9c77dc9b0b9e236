"""The schedule and the sensors as the daemon asks them, beside the records that they look at."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from alembic.script import ScriptDirectory

from market_data_pipeline import definitions
from market_data_pipeline.definitions import defs, watch_freshness
from market_data_pipeline.market import clock
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE
from market_data_pipeline.operation.launching import every_window, launch_missing
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline_tests.conftest import SetClock, at, tags_of

ASSETS = tuple(each.key.to_user_string() for each in definitions.ASSETS)
Status = dg.DagsterRunStatus

# Each tick opens the records anew: to read Dagster's migrations would take most of its time.
ScriptDirectory.from_config = cache(ScriptDirectory.from_config)  # type: ignore[method-assign]


@dg.asset(key=["funds", "quotes"], partitions_def=WINDOWS.partitions)
def quotes_of_another_code_location() -> None: ...


@cache
def job_of(*assets: str) -> dg.JobDefinition:
    """A job of some assets."""
    selection = " or ".join(f'key:"{asset}"' for asset in assets)
    others = dg.Definitions(
        [quotes_of_another_code_location], jobs=[dg.define_asset_job("some", selection=selection)]
    )
    return dg.Definitions.merge(defs, others).resolve_job_def("some")


@contextmanager
def dagsters_clock() -> Iterator[None]:
    """Dagster has the clock of the pipeline: it knows no window that has not ended by that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dagster._time._mockable_get_current_datetime", lambda: clock.utc_now())
        now = lambda: clock.utc_now().timestamp()  # noqa: E731
        patch.setattr("dagster._time._mockable_get_current_timestamp", now)
        yield


class Operation:
    """What an instance knows, and what is launched then; moments are local times in São Paulo."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        store: QuoteStore,
        set_clock: SetClock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.instance, self.store = instance, store
        self._set_clock, self._patch = set_clock, monkeypatch
        self.definitions = defs
        self.cursor: str | None = ""
        self.said: dict[str, str] = {}

    def tick(self, scheduled: str, now: datetime | None = None) -> dg.RunRequest | str:
        """What the schedule does at a tick, a second later by the clock unless `now` is given."""
        self._set_clock(now or at(scheduled) + timedelta(seconds=1))
        context = dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=at(scheduled).astimezone(EXCHANGE_TIMEZONE),
            repository_def=defs.get_repository_def(),
        )
        with dagsters_clock():
            data = every_window.evaluate_tick(context)
        return data.run_requests[0] if data.run_requests else str(data.skip_message)

    def look(self, moment: str, seconds: float = 0) -> list[list[str]] | str:
        """The assets of each run that the sensor launches, or why it launches none.

        Args:
            moment: what the pipeline's clock shows.
            seconds: how long from now it is by the clock of Dagster's records.
        """
        self._set_clock(at(moment))
        later = datetime.now(UTC) + timedelta(seconds=seconds)
        self._patch.setattr(clock, "record_now", lambda: later)
        context = dg.build_sensor_context(
            instance=self.instance,
            repository_def=self.definitions.get_repository_def(),
            resources={"quote_store": self.store},
        )
        with dagsters_clock():
            data = launch_missing.evaluate_tick(context)
        assert data.cursor is None, "it keeps no state"
        self.requests: Sequence[dg.RunRequest] = data.run_requests or []
        everything = [dg.AssetKey(asset) for asset in ASSETS]
        launched = [each.asset_selection or everything for each in self.requests]
        names = [[key.to_user_string() for key in keys] for keys in launched]
        return names or str(data.skip_message)

    def is_fresh(self, moment: str) -> dict[str, bool] | str:
        """What the other sensor reports: whether each asset is fresh, or why it reports nothing."""
        self._set_clock(at(moment))
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        data = watch_freshness.evaluate_tick(context)
        assert not data.run_requests
        self.cursor = data.cursor
        found = {}
        for event in data.asset_events:
            assert isinstance(event, dg.AssetCheckEvaluation)
            self.instance.report_runless_asset_event(event)
            found[event.asset_key.to_user_string()] = event
        self.said = {name: str(event.description) for name, event in found.items()}
        return {name: event.passed for name, event in found.items()} or str(data.skip_message)

    def materialize(self, key: str, *assets: str, **metadata: Any) -> None:
        """As if a run had stored a window in these assets, or in all three."""
        for asset in assets or ASSETS:
            event = dg.AssetMaterialization(asset, partition=key, metadata=metadata)
            self.instance.report_runless_asset_event(event)

    def run(
        self, key: str, *assets: str, status: Status = Status.STARTED, last: str | None = None
    ) -> str:
        """A run of these assets, or all, for a window or a range; its id as it is shown."""
        run = self.instance.create_run_for_job(
            job_of(*(assets or ASSETS)), status=Status.STARTED, tags=tags_of(key, last)
        )
        if status is Status.FAILURE:
            self.instance.report_run_failed(run)
        elif status is Status.CANCELED:
            self.instance.report_run_canceled(run)
        return run.run_id[:8]


@pytest.fixture
def operation(
    instance: dg.DagsterInstance,
    tmp_path: Path,
    set_clock: SetClock,
    monkeypatch: pytest.MonkeyPatch,
) -> Operation:
    store = QuoteStore(path=str(tmp_path / "quotes"))
    return Operation(instance, store, set_clock, monkeypatch)
