"""Which runs that failed are told, and how; and what real runs that go wrong come to."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from market_data_pipeline.market import clock
from market_data_pipeline.runs.dagster_internals import is_of_this_location
from market_data_pipeline.settings import settings
from market_data_pipeline_tests.alerts.conftest import Chat, Watch, quote
from market_data_pipeline_tests.b3.conftest import Official
from market_data_pipeline_tests.b3.conftest import b3 as b3
from market_data_pipeline_tests.b3.conftest import official as official
from market_data_pipeline_tests.b3.files import session_file
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline, SetClock, at, tags_of
from market_data_pipeline_tests.record.helpers import NOWHERE, SECOND, VICTIM, accept, times

NOON, HALF_PAST = "2026-11-17T12:00-0300", "2026-11-17T12:30-0300"
LAST = "2026-11-17T17:30-0300"
NOTHING = dg.GraphDefinition("everything", node_defs=[]).to_job()
AWAY = dg.Failure("MongoDB is <away>:\nstart it.")


def fail(watch: Watch, first: str = "", last: str = "", *, error: Exception = AWAY) -> str:
    """A run for a window, for all from `first` to `last`, or for none, that fails; its id."""

    @dg.op
    def sink() -> None:
        raise error

    tags, ran = tags_of(first, last), dg.GraphDefinition("everything", node_defs=[sink]).to_job()
    return ran.execute_in_process(instance=watch.instance, raise_on_error=False, tags=tags).run_id


def test_a_window_or_a_range_that_fails_again_and_again_is_told_once_with_the_reason(
    watch: Watch, chat: Chat
) -> None:
    told = []
    for windows in ((NOON,), (NOON, HALF_PAST)):
        run_id = fail(watch, *windows)
        for _ in range(3):
            watch.at()
            fail(watch, *windows)
        head = f"*sink failed for {' to '.join(windows)}*"
        told.append(f"{head}\n> MongoDB is &lt;away&gt;: start it.\n> Run {run_id}")

    assert chat.taken == told


def test_runs_without_a_window_are_told_each_with_a_link_and_no_error_that_is_not_ours(
    watch: Watch, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_URL", "https://dagster.example/")
    settings.cache_clear()
    told = []
    for _ in range(2):
        run_id = fail(watch, error=RuntimeError("password=word-77aa"))
        watch.at()
        told.append(
            f"*sink failed in run {run_id[:8]}*\n> RuntimeError, see the log of the run\n"
            f"> https://dagster.example/runs/{run_id}"
        )

    assert chat.taken == told


def test_what_failed_before_the_sensor_was_switched_on_is_not_told_and_later_at_the_opening(
    watch: Watch, chat: Chat
) -> None:
    fail(watch, NOON)
    watch.cursor = None
    for _ in range(3):
        watch.at()
    assert chat.taken == []
    fail(watch, HALF_PAST)
    for moment in ("2026-11-17T20:00", "2026-11-18T10:00", "2026-11-18T10:01"):
        watch.at(moment)

    assert [text.splitlines()[0] for text in chat.taken] == [f"*sink failed for {HALF_PAST}*"]


def test_all_that_fail_at_once_are_told_once_each(watch: Watch, chat: Chat) -> None:
    runs = [fail(watch) for _ in range(30)]
    for _ in range(3):
        watch.at()

    told = [line for text in chat.taken for line in text.splitlines() if "Run " in line]
    assert told == [f"> Run {run_id}" for run_id in runs]


def test_a_clock_that_was_ahead_at_a_look_hides_no_later_failure(
    watch: Watch, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as ahead:
        ahead.setattr(clock, "record_now", lambda: datetime.now(UTC) + timedelta(hours=5))
        watch.at()
    watch.at()
    fail(watch, NOON)
    watch.at()

    assert [text.splitlines()[0] for text in chat.taken] == [f"*sink failed for {NOON}*"]


def test_a_run_is_of_the_code_location_that_launched_it(watch: Watch, chat: Chat) -> None:
    """As Dagster records it: an upgrade may break this."""
    never = ("instance_ref", "last_tick_completion_time", "last_run_key", "cursor")
    target = LoadableTargetOrigin(module_name="ours")
    location, other = (
        InProcessCodeLocationOrigin(target, location_name=name) for name in ("ours", "others")
    )
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "everything")
    ours = watch.instance.create_run_for_job(NOTHING, remote_job_origin=origin)

    for each in (location, other):
        sensor = dg.SensorEvaluationContext(
            **dict.fromkeys(never),
            repository_name=None,
            instance=watch.instance,
            code_location_origin=each,
        )
        assert is_of_this_location(sensor, ours) == (each is location)
    watch.instance.report_run_failed(ours)
    watch.at()

    assert chat.taken == [], "the sensor of the tests is in no code location"


def test_both_sinks_of_a_run_and_then_each_alone_are_told_once(
    four_instruments: object, pipeline: Pipeline, watch: Watch, chat: Chat
) -> None:
    watch.instance, pipeline.mongo_uri = pipeline.instance, NOWHERE
    sinks = ("kafka_publication", "mongo_price_history")
    with pipeline.without_kafka():
        for select in ("*", *sinks):
            assert not pipeline.run(LIVE_ON_TUESDAY, select=select).success
            watch.at()

    told = [line for text in chat.taken for line in text.splitlines() if " failed for " in line]
    assert told == [f"*{sink} failed for {LIVE_ON_TUESDAY}*" for sink in sinks]


def test_b3s_file_that_came_in_the_night_is_no_news_and_what_it_shows_is(
    official: Official, watch: Watch, chat: Chat, set_clock: SetClock
) -> None:
    watch.instance = official.pipeline.instance
    official.pipeline.store.save([quote(LAST, "PETR4", price=40.0)], [LAST])
    assert not official().success
    official.b3.files |= session_file("2026-11-17")
    set_clock(at("2026-11-18T03:00"))
    assert official().success
    for moment in ("2026-11-18T12:00", "2026-11-18T12:01"):
        watch.at(moment)

    (told,) = chat.taken
    assert "failed for" not in told
    assert told.startswith("*official_close: closes_match*\n> 2026-11-17T17:30-0300: 0 of 1")


def test_a_run_without_a_step_that_failed_is_told_too(watch: Watch, chat: Chat) -> None:
    watch.instance.report_run_failed(watch.instance.create_run_for_job(NOTHING))
    watch.at()

    assert "> No step failed: see the log of the run." in chat.taken[0]


def test_a_withheld_price_and_a_broker_that_is_away_until_both_are_well(
    four_instruments: object, pipeline: Pipeline, watch: Watch, chat: Chat, set_clock: SetClock
) -> None:
    watch.instance = pipeline.instance
    assert pipeline.run(LIVE_ON_TUESDAY).success
    set_clock(at("2026-11-17T15:30:05"))
    pipeline.sandbox.faults = [times(pipeline, 0.1)]
    with pipeline.without_kafka():
        assert not pipeline.run(SECOND).success
        watch.at("2026-11-17T15:31")
    delivered, prices, failed = chat.taken[0].split("\n\n")
    assert delivered.startswith(
        f"*kafka_publication: every_quote_delivered*\n> {SECOND}: {SECOND} was not published"
    )
    assert prices.startswith(
        f"*quotes: prices_plausible*\n> {SECOND}: 1 of 4 made-up prices have moved too far"
    )
    assert failed.startswith(f"*kafka_publication failed for {SECOND}*\n> Kafka at 127.0.0.1:1 ")
    assert f'{{"ops": {{"quotes": {{"config": {{"accept": ["{VICTIM}"]}}}}}}}}' in prices
    set_clock(at("2026-11-17T15:32"))
    assert accept(pipeline, SECOND, VICTIM).success
    watch.at("2026-11-17T15:32")
    watch.at("2026-11-17T15:33")

    assert chat.taken[1:] == [
        "*Resolved: kafka_publication: every_quote_delivered.*\n\n"
        "*Resolved: quotes: prices_plausible.*"
    ]
