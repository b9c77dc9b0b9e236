"""When a run is launched, and what is said when none is."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault
from dagster._utils.schedules import cron_string_iterator

from market_data_pipeline.definitions import defs
from market_data_pipeline.market.windows import (
    EXCHANGE_TIMEZONE,
    LAUNCH_AHEAD,
    TradingWindows,
)
from market_data_pipeline.operation import freshness, launching
from market_data_pipeline.publication.event import Event
from market_data_pipeline.publication.kafka import Kafka, Offsets
from market_data_pipeline.runs.common import GROUP, WINDOWS
from market_data_pipeline.settings import INTERVALS_IN_MINUTES
from market_data_pipeline_tests.conftest import (
    LIVE_ON_TUESDAY,
    TUESDAY_15_00,
    Pipeline,
    SetClock,
    at,
)
from market_data_pipeline_tests.schedule.conftest import ASSETS, Operation, Status, dagsters_clock

# The schedule


@pytest.mark.parametrize("minutes", INTERVALS_IN_MINUTES)
def test_a_tick_is_a_minute_before_the_end_of_each_window(minutes: int) -> None:
    windows, midnight = TradingWindows(minutes), at("2026-11-19T00:00")
    ticks = cron_string_iterator(midnight.timestamp(), windows.launch_cron, EXCHANGE_TIMEZONE.key)
    session = windows.of_session(date(2026, 11, 19))

    assert [next(ticks) + LAUNCH_AHEAD for _ in session] == [window.end for window in session]
    assert next(ticks) > midnight + timedelta(days=1)


@pytest.mark.parametrize(
    ("scheduled", "reason"),
    [
        ("2026-11-22T11:59", "ends Sun 22 Nov 12:00. Next window ends Mon 23 Nov 10:30."),
        ("2026-11-20T11:59", "ends Fri 20 Nov 12:00. Next window ends Mon 23 Nov 10:30."),
        ("2026-11-19T09:59", "ends Thu 19 Nov 10:00. Next window ends Thu 19 Nov 10:30."),
        ("2026-11-19T18:29", "ends Thu 19 Nov 18:30. Next window ends Mon 23 Nov 10:30."),
        ("2025-12-30T11:59", "ends Tue 30 Dec 12:00. Next window ends Fri 02 Jan 10:30."),
        ("2026-02-18T11:59", "ends Wed 18 Feb 12:00. Next window ends Wed 18 Feb 13:30."),
    ],
)
def test_a_closed_market_launches_nothing_and_says_when_it_opens(
    operation: Operation, scheduled: str, reason: str
) -> None:
    assert str(operation.tick(scheduled)) == f"No window {reason}"


@pytest.mark.parametrize(
    ("seconds", "launched"),
    [(-20, True), (-0.2, True), (50, True), (50.1, False), (60, False), (600, False)],
    ids=str,
)
def test_a_tick_may_be_early_or_late_as_long_as_its_run_starts_before_the_window_ends(
    operation: Operation, seconds: float, launched: bool
) -> None:
    """The clocks of the daemon and of the code location may differ."""
    said = operation.tick("2026-11-19T15:29", at("2026-11-19T15:29") + timedelta(seconds=seconds))

    if launched:
        assert isinstance(said, dg.RunRequest)
        assert said.tags["dagster/partition"] == "2026-11-19T15:00-0300"
        assert said.run_key == "2026-11-19T15:00-0300 to 15:30"
    else:
        assert said == "Late: `launch_missing` launches 2026-11-19T15:00-0300 after its end."


def test_before_the_first_window_ends_nothing_is_launched(
    operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PARTITIONS_START is today."""
    for module in (launching, freshness):
        monkeypatch.setattr(module, "WINDOWS", TradingWindows(first_day=date(2026, 11, 19)))

    assert "No window ends Thu 19 Nov 10:00" in str(operation.tick("2026-11-19T09:59"))
    said = operation.look("2026-11-19T10:05")
    assert said == "No window has ended yet. Next window ends Thu 19 Nov 10:30."


# Both

KEY = "2026-11-19T15:00-0300"
LAUNCHED = [[*ASSETS]]


def both(operation: Operation) -> tuple[dg.RunRequest | str, list[list[str]] | str]:
    """What the schedule does before the end of the window, and the sensor after it."""
    return operation.tick("2026-11-19T15:29"), operation.look("2026-11-19T15:31")


@pytest.mark.parametrize(
    ("first", "last", "status", "said"),
    [
        (KEY, None, Status.STARTED, "Run {} is in progress for {}."),
        ("2026-11-19T14:00-0300", "2026-11-19T16:00-0300", Status.STARTED, "Run {} is in progress"),
        (KEY, None, Status.CANCELED, "Run {} of {} was terminated: materialize quotes."),
    ],
)
def test_a_window_that_is_on_its_way_or_whose_run_was_terminated_is_not_launched_again(
    operation: Operation, first: str, last: str | None, status: Status, said: str
) -> None:
    run_id = operation.run(first, status=status, last=last)

    for answer in both(operation):
        assert str(answer).startswith(said.format(run_id, KEY))


def test_runs_of_other_assets_and_one_that_ended_before_the_window_do_not_hold_it_back(
    operation: Operation, set_clock: SetClock
) -> None:
    """A range to the end of the session, launched by its tags, is terminated in the queue."""
    operation.run(KEY, "funds/quotes")
    operation.run(KEY, "kafka_publication")
    set_clock(at("2026-11-19T12:00"))
    with dagsters_clock():
        operation.run("2026-11-19T10:00-0300", status=Status.CANCELED, last=THURSDAYS_LAST)

    scheduled, missing = both(operation)

    assert isinstance(scheduled, dg.RunRequest)
    assert missing == LAUNCHED


# What is missing


THURSDAYS_LAST = "2026-11-19T17:30-0300"


@pytest.mark.parametrize(
    ("key", "moment", "said", "stored"),
    [
        (KEY, "2026-11-19T15:30", LAUNCHED, None),
        (KEY, "2026-11-19T15:58:59", LAUNCHED, f"Nothing is missing of {KEY}."),
        (
            KEY,
            "2026-11-19T15:59:01",
            f"{KEY} is live for less than a minute. Next window ends Thu 19 Nov 16:00.",
            None,
        ),
        (THURSDAYS_LAST, "2026-11-22T12:00", LAUNCHED, f"Nothing is missing of {THURSDAYS_LAST}."),
        (
            THURSDAYS_LAST,
            "2026-11-23T10:15",
            LAUNCHED,
            f"{THURSDAYS_LAST} is no longer live. Next window ends Mon 23 Nov 10:30.",
        ),
    ],
)
def test_a_window_without_quotes_is_launched_as_long_as_its_run_is_in_time(
    operation: Operation, key: str, moment: str, said: object, stored: str | None
) -> None:
    """At a start of the daemon, too: on a Sunday for the session before, with its live prices."""
    assert operation.look(moment) == said
    for request in operation.requests:
        assert request.partition_key == key
        assert request.run_key is None, "Dagster launches no second run with a run key"
    if stored:
        operation.materialize(key)
        assert operation.look(moment) == stored


@pytest.mark.parametrize("asset", ASSETS[1:])
def test_a_sink_that_is_older_than_the_quotes_is_launched_alone_while_they_are_live(
    operation: Operation, asset: str
) -> None:
    operation.materialize(THURSDAYS_LAST)
    operation.materialize(THURSDAYS_LAST, *(each for each in ASSETS if each != asset))

    assert operation.look("2026-11-19T18:01") == [[asset]]
    assert "is no longer live. Next window ends Mon" in operation.look("2026-11-23T10:15")


@dg.asset(deps=["quotes"], group_name=GROUP, partitions_def=WINDOWS.partitions)
def a_third_sink() -> None: ...


def test_another_sink_is_launched_like_the_two_that_are_there(operation: Operation) -> None:
    operation.definitions = dg.Definitions.merge(defs, dg.Definitions([a_third_sink]))
    operation.materialize(KEY)

    assert operation.look("2026-11-19T15:31") == [["a_third_sink"]]


def test_after_each_failure_the_wait_is_longer_until_there_were_too_many(
    operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for delay in (30, 60, 120):
        operation.run(KEY, status=Status.FAILURE)
        said = operation.look("2026-11-19T15:31", delay - 5)
        assert str(said).startswith(f"quotes failed for {KEY}: launched again in ")
        assert operation.look("2026-11-19T15:31", delay + 1) == LAUNCHED

    monkeypatch.setattr(launching, "DELAYS", launching.DELAYS[:2])
    said = operation.look("2026-11-19T15:31", 10_000)
    assert said == f"3 runs have failed for {KEY}: fix the cause, then materialize."
    assert isinstance(operation.tick("2026-11-19T15:59"), dg.RunRequest), "the next one is"


def test_each_sink_waits_by_its_own_runs(operation: Operation) -> None:
    operation.run(KEY, status=Status.FAILURE)
    operation.run(KEY, status=Status.FAILURE)
    operation.materialize(KEY, "quotes")
    operation.run(KEY, "kafka_publication", status=Status.FAILURE)

    assert operation.look("2026-11-19T15:31", 5) == [["mongo_price_history"]]
    assert operation.look("2026-11-19T15:31", 31) == [
        ["kafka_publication"],
        ["mongo_price_history"],
    ]
    operation.materialize(KEY, "mongo_price_history")
    for status in (Status.CANCELED, Status.STARTED):
        run_id = operation.run(KEY, "kafka_publication", status=status)
        assert f"Run {run_id}" in operation.look("2026-11-19T15:31")


@pytest.mark.usefixtures("four_instruments")
def test_a_sink_that_failed_is_launched_though_an_earlier_run_has_ended_later(
    pipeline: Pipeline,
    operation: Operation,
    set_clock: SetClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operation.instance, operation.store = pipeline.instance, pipeline.store
    publish, runs = Kafka.publish, [pipeline.run]

    def slowly(kafka: Kafka, events: Sequence[Event]) -> Offsets:
        if runs:
            set_clock(TUESDAY_15_00 + timedelta(minutes=5))
            assert runs.pop()(LIVE_ON_TUESDAY, select="quotes").success
        return publish(kafka, events)

    monkeypatch.setattr(Kafka, "publish", slowly)
    assert pipeline.run(LIVE_ON_TUESDAY).success
    with pipeline.without_kafka():
        assert not pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success

    assert operation.look("2026-11-17T15:20", 60) == [["kafka_publication"]]

    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success
    pipeline.sandbox.faults = [Fault(status=404)]
    assert not pipeline.run(LIVE_ON_TUESDAY).success, "its sinks have not begun"
    assert operation.look("2026-11-17T15:20", 60) == f"Nothing is missing of {LIVE_ON_TUESDAY}."


def test_a_materialization_from_before_the_end_of_its_window_does_not_count(
    operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SYNC_INTERVAL_MINUTES was 15 until just now: a shorter window with the same start."""
    operation.materialize(KEY)
    shown = datetime.now(EXCHANGE_TIMEZONE).date()
    days = (shown + timedelta(days=n) for n in range(1, 15))
    window = next(filter(None, map(WINDOWS.of_session, days)))[3]
    operation.materialize(window.key)

    local = (window.end + timedelta(minutes=1)).astimezone(EXCHANGE_TIMEZONE)
    assert operation.look(f"{local:%Y-%m-%dT%H:%M}") == LAUNCHED
    assert operation.look("2026-11-19T15:31") == f"Nothing is missing of {KEY}."
