"""When a run is launched, and what is said when none is."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from market_data_pipeline.brapi.resource import BrapiResource
from market_data_pipeline.definitions import defs
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, TradingWindows
from market_data_pipeline.operation import automation, freshness, retries
from market_data_pipeline.operation.automation import at_startup
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline_tests.conftest import SetClock, at
from market_data_pipeline_tests.schedule.conftest import Tick, report_daemon


def stored(instance: dg.DagsterInstance, key: str) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization("quotes", partition=key))


def under_way(
    instance: dg.DagsterInstance,
    key: str,
    job: dg.JobDefinition | None = None,
    last: str | None = None,
) -> str:
    ends = {"start": key, "end": last}
    run = instance.create_run_for_job(
        job or defs.resolve_job_def("market_data_job"),
        status=dg.DagsterRunStatus.STARTED,
        tags={f"dagster/asset_partition_range_{end}": str(ends[end]) for end in ends}
        if last
        else {"dagster/partition": key},
    )
    return run.run_id[:8]


def test_the_end_of_a_window_launches_its_run(tick) -> None:
    request = tick("2026-11-19T18:00")

    assert request.partition_key == "2026-11-19T17:30-0300"
    assert request.run_key == "2026-11-19T17:30-0300 to 18:00"


@pytest.mark.parametrize(
    ("scheduled", "reason"),
    [
        ("2026-11-22T12:00", "B3 is closed: Sunday. Next window ends Mon 23 Nov 10:30."),
        ("2026-11-20T12:00", "B3 is closed: Fri 20 Nov is a holiday. Next window ends Mon 23 Nov"),
        ("2026-11-19T10:00", "the session goes from 10:00 to 18:00. Next window ends Thu 19 Nov 1"),
        ("2026-11-19T18:30", "the session goes from 10:00 to 18:00. Next window ends Mon 23 Nov"),
        ("2026-02-18T12:00", "the session goes from 13:00 to 18:00. Next window ends Wed 18 Feb"),
    ],
)
def test_a_closed_market_launches_nothing_and_says_when_it_opens(
    tick, scheduled: str, reason: str
) -> None:
    assert reason in tick(scheduled)


def test_a_tick_that_comes_late_asks_for_nothing(tick) -> None:
    said = tick("2026-11-19T12:00", now=at("2026-11-19T15:10"))

    assert "No run started for 2026-11-19T11:30-0300 before the next window ended" in said


def test_a_window_that_is_there_or_on_its_way_is_not_asked_for_again(tick, instance) -> None:
    stored(instance, "2026-11-19T14:30-0300")
    run_id = under_way(instance, "2026-11-19T15:00-0300")

    assert "are already stored" in tick("2026-11-19T15:00")
    assert f"Run {run_id} is in progress" in tick("2026-11-19T15:30")


def test_a_range_that_holds_the_window_is_on_its_way_for_it(tick, instance) -> None:
    run_id = under_way(instance, "2026-11-19T14:00-0300", last="2026-11-19T15:00-0300")

    assert f"Run {run_id} is in progress" in tick("2026-11-19T15:30")
    assert tick("2026-11-19T16:00").partition_key == "2026-11-19T15:30-0300"


@pytest.mark.parametrize("seconds", [0.2, 20])
def test_a_clock_that_is_behind_the_daemons_loses_no_window(tick: Tick, seconds: float) -> None:
    behind = at("2026-11-19T15:30") - timedelta(seconds=seconds)

    request = tick("2026-11-19T15:30", now=behind)

    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-11-19T15:00-0300"


def test_a_longer_window_is_asked_for_although_a_shorter_one_with_its_start_is_there(
    tick, instance
) -> None:
    """SYNC_INTERVAL_MINUTES was 15 until just now: what is there was stored before its end."""
    now = datetime.now(UTC)
    day = next(
        each
        for each in (now.date() + timedelta(days=n) for n in range(1, 15))
        if WINDOWS.of_session(each)
    )
    window = WINDOWS.of_session(day)[3]
    stored(instance, window.key)

    request = tick(f"{window.end.astimezone(EXCHANGE_TIMEZONE):%Y-%m-%dT%H:%M}")

    assert request.partition_key == window.key
    shorter = TradingWindows(15).from_key(window.key)
    assert request.run_key != f"{shorter.key} to {shorter.end.astimezone(EXCHANGE_TIMEZONE):%H:%M}"


def test_before_the_first_window_ends_nothing_is_launched(
    tick, daemon: "Daemon", monkeypatch: pytest.MonkeyPatch
) -> None:
    """PARTITIONS_START is today."""
    first = TradingWindows(first_day=date(2026, 11, 19))
    for module in (automation, freshness, retries):
        monkeypatch.setattr(module, "WINDOWS", first)
    daemon.start()

    said = tick("2026-11-19T10:00", now=at("2026-11-19T10:05"))
    assert "No window ends now" in said
    assert "No window has ended yet. Next window ends Thu 19 Nov 10:30" in daemon.look()
    sensor = dg.build_sensor_context(
        instance=daemon.instance,
        repository_def=defs.get_repository_def(),
        resources={"brapi": BrapiResource()},
    )
    assert freshness.watch_freshness.evaluate_tick(sensor).skip_message == "No window is due yet."
    assert retries.retry_live_window.evaluate_tick(sensor).skip_message == "No window is live."


@dg.asset(key=["funds", "quotes"], partitions_def=WINDOWS.partitions)
def quotes_of_another_code_location() -> None: ...


@pytest.mark.parametrize("selected", ["funds/quotes", "kafka_publication"])
def test_a_run_that_asks_for_no_quotes_of_ours_is_not_on_its_way(
    tick, instance, selected: str
) -> None:
    job = dg.define_asset_job("another_job", selection=f'key:"{selected}"')
    others = dg.Definitions(assets=[quotes_of_another_code_location], jobs=[job])
    another_job = dg.Definitions.merge(defs, others).resolve_job_def("another_job")
    under_way(instance, "2026-11-19T15:00-0300", another_job)

    request = tick("2026-11-19T15:30")

    assert request.partition_key == "2026-11-19T15:00-0300"


class Daemon:
    """The sensor as a daemon sees it: it keeps the cursor, and starts anew with a new id."""

    def __init__(self, instance: dg.DagsterInstance, set_clock: SetClock) -> None:
        self.instance, self.set_clock = instance, set_clock
        self.cursor: str | None = None
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        report_daemon(self.instance, f"daemon-{self.starts}")

    def look(self) -> dg.RunRequest | str:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, repository_def=defs.get_repository_def()
        )
        data = at_startup.evaluate_tick(context)
        self.cursor = data.cursor
        if data.run_requests:
            (request,) = data.run_requests
            return request
        assert data.skip_message
        return data.skip_message


@pytest.fixture
def daemon(instance: dg.DagsterInstance, set_clock: SetClock) -> Daemon:
    set_clock(at("2026-11-22T12:00"))
    return Daemon(instance, set_clock)


def test_a_start_launches_one_run_for_the_last_window(daemon: Daemon) -> None:
    daemon.start()

    request = daemon.look()

    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-11-19T17:30-0300"
    for _ in range(3):
        said = daemon.look()
        assert "The startup run for this daemon start was already handled." in said
        assert "Next window ends Mon 23 Nov 10:30" in said


def test_nothing_is_launched_before_the_daemon_has_reported(daemon: Daemon) -> None:
    assert "has not reported yet" in daemon.look()


def test_a_second_start_launches_again_only_if_the_window_is_missing(daemon: Daemon) -> None:
    daemon.start()
    first = daemon.look()
    daemon.start()
    assert daemon.look() == "Waiting in case the schedule launches 2026-11-19T17:30-0300."
    second = daemon.look()
    assert isinstance(first, dg.RunRequest)
    assert isinstance(second, dg.RunRequest)
    assert first.run_key != second.run_key

    stored(daemon.instance, "2026-11-19T17:30-0300")
    daemon.start()
    assert "are already stored" in daemon.look()


def test_a_window_is_not_asked_for_twice_where_the_schedule_catches_up(daemon: Daemon) -> None:
    """A daemon that was down at 11:30 is there again at 11:40; its schedule is as quick."""
    daemon.start()
    daemon.look()
    daemon.set_clock(at("2026-11-19T11:40"))
    daemon.start()
    looks = [daemon.look()]
    run_id = under_way(daemon.instance, "2026-11-19T11:00-0300")
    looks.append(daemon.look())

    assert looks == [
        "Waiting in case the schedule launches 2026-11-19T11:00-0300.",
        f"Run {run_id} is in progress for 2026-11-19T11:00-0300.",
    ]


def test_a_window_that_has_just_ended_is_the_schedules(daemon: Daemon) -> None:
    daemon.start()
    daemon.set_clock(at("2026-11-19T11:30:05"))
    assert "Waiting in case the schedule launches 2026-11-19T11:00-0300." in daemon.look()
    daemon.set_clock(at("2026-11-19T11:30:35"))
    assert isinstance(daemon.look(), dg.RunRequest)


def test_a_deployment_that_keeps_crashing_does_not_burn_the_quota(daemon: Daemon) -> None:
    launched = []
    for _ in range(10):
        daemon.start()
        request = daemon.look()
        if "Waiting in case the schedule launches" in str(request):
            request = daemon.look()
        if isinstance(request, dg.RunRequest):
            launched.append(request)
            daemon.instance.create_run_for_job(
                defs.resolve_job_def("market_data_job"),
                status=dg.DagsterRunStatus.FAILURE,
                tags={"dagster/partition": request.partition_key, **request.tags},
            )

    assert len(launched) == 3
    assert "find out why they failed" in request
