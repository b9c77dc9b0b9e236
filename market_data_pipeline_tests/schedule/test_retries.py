"""What is launched again by itself while a window is live, and what is not."""

import subprocess
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.brapi.quota import last_recorded
from market_data_pipeline.definitions import defs
from market_data_pipeline.operation.retries import retry_live_window
from market_data_pipeline.runs.one_at_a_time import PROCESS_TAG, name_of_process
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline, SetClock
from market_data_pipeline_tests.observed import checks, failure_of
from market_data_pipeline_tests.record.helpers import SECOND, VICTIM, accept, times
from market_data_pipeline_tests.schedule.conftest import unfinished_run


class Retrier:
    """The sensor beside a pipeline: what it requests is run."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def look(self, seconds: float) -> list[dg.RunRequest] | str:
        """A look of the sensor so many seconds from now, by the clock of Dagster's records."""
        context = dg.build_sensor_context(
            instance=self.pipeline.instance, repository_def=defs.get_repository_def()
        )
        later = datetime.now(UTC) + timedelta(seconds=seconds)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("market_data_pipeline.market.clock.record_now", lambda: later)
            data = retry_live_window.evaluate_tick(context)
        return data.run_requests or str(data.skip_message)


@pytest.fixture
def retrier(pipeline: Pipeline) -> Retrier:
    return Retrier(pipeline)


def test_a_sink_that_failed_is_launched_alone_with_growing_delays(retrier: Retrier) -> None:
    pipeline = retrier.pipeline
    with pipeline.without_kafka():
        assert not pipeline.run(LIVE_ON_TUESDAY).success
        assert "Nothing" in retrier.look(5)
        asked = len(pipeline.sandbox.requests)

        for delay in (31, 61, 121):
            assert "Nothing" in retrier.look(delay - 25)
            [request] = retrier.look(delay)
            assert request.asset_selection == [dg.AssetKey("kafka_publication")]
            result = pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication", tags=request.tags)
            assert not result.success
    [request] = retrier.look(241)
    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication", tags=request.tags).success

    assert len(pipeline.events()) == 50
    assert len(pipeline.sandbox.requests) == asked
    assert "Nothing" in retrier.look(1_000)


def test_the_database_alone_is_retried_too(retrier: Retrier) -> None:
    pipeline = retrier.pipeline
    uri, pipeline.mongo_uri = pipeline.mongo_uri, "mongodb://127.0.0.1:1"
    assert not pipeline.run(LIVE_ON_TUESDAY).success
    assert len(pipeline.events()) == 50
    pipeline.mongo_uri = uri

    [request] = retrier.look(31)

    assert request.asset_selection == [dg.AssetKey("mongo_price_history")]


def test_an_acceptance_that_the_database_missed_is_written_by_the_retry(
    retrier: Retrier, set_clock: SetClock
) -> None:
    pipeline = retrier.pipeline
    assert pipeline.run(LIVE_ON_TUESDAY).success
    set_clock(TUESDAY_15_00 + timedelta(minutes=30))
    pipeline.sandbox.faults = [times(pipeline, 0.1)]
    assert pipeline.run(SECOND).success
    uri, pipeline.mongo_uri = pipeline.mongo_uri, "mongodb://127.0.0.1:1"
    result = accept(pipeline, SECOND, VICTIM)
    assert "The acceptance is not in the collection" in failure_of(result, "kafka_publication")
    published = len(pipeline.events())
    assert checks(result)["every_quote_delivered"][0]
    assert "Nothing" in retrier.look(5)
    pipeline.mongo_uri = uri

    [request] = retrier.look(31)

    assert request.asset_selection == [dg.AssetKey("mongo_price_history")]
    assert pipeline.run(SECOND, select="mongo_price_history", tags=request.tags).success
    (document,) = pipeline.documents({"_id": f"{VICTIM}|2026-11-17T18:00:00Z"})
    assert document["decision"] == "accepted"
    assert "Nothing" in retrier.look(1_000)
    assert len(pipeline.events()) == published


def test_what_a_later_run_could_not_publish_is_retried_too(retrier: Retrier) -> None:
    pipeline = retrier.pipeline
    pipeline.sandbox.faults = [Fault(ticker="VALE3", status=404)]
    assert pipeline.run(LIVE_ON_TUESDAY).success
    assert len(pipeline.events()) == 49
    pipeline.sandbox.faults = []
    with pipeline.without_kafka():
        assert not pipeline.run(LIVE_ON_TUESDAY).success

    [request] = retrier.look(31)

    assert request.asset_selection == [dg.AssetKey("kafka_publication")]
    pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication", tags=request.tags)
    assert len({seen.ce_id for seen in pipeline.events()}) == 50
    assert "Nothing" in retrier.look(1_000)


def a_process_that_has_ended() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_a_sink_that_was_killed_is_noticed_and_launched_again(retrier: Retrier) -> None:
    pipeline = retrier.pipeline
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    run = unfinished_run(pipeline.instance, "kafka_publication", LIVE_ON_TUESDAY)
    process = name_of_process(run.run_id, a_process_that_has_ended())
    pipeline.instance.add_run_tags(run.run_id, {PROCESS_TAG: process})

    retrier.look(0)

    ended = pipeline.instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status is dg.DagsterRunStatus.FAILURE
    [request] = retrier.look(31)
    assert request.asset_selection == [dg.AssetKey("kafka_publication")]


def test_a_retry_is_not_dead_because_the_run_that_it_replaces_is(retrier: Retrier) -> None:
    """Dagster gives a retry the tags of the run that was killed."""
    pipeline = retrier.pipeline
    killed = unfinished_run(pipeline.instance, "quotes", LIVE_ON_TUESDAY)
    process = name_of_process(killed.run_id, a_process_that_has_ended())
    pipeline.instance.add_run_tags(killed.run_id, {PROCESS_TAG: process})
    pipeline.instance.report_run_failed(killed)
    retry = unfinished_run(pipeline.instance, "quotes", LIVE_ON_TUESDAY, **{PROCESS_TAG: process})

    assert f"Run {retry.run_id[:8]} is in progress" in retrier.look(31)


def test_no_number_of_other_runs_ends_the_retries(
    retrier: Retrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster launches no second run with a run key."""
    monkeypatch.setattr("market_data_pipeline.runs.run_history._MOST_RUNS", 2)
    pipeline = retrier.pipeline
    keys = []
    with pipeline.without_kafka():
        assert not pipeline.run(LIVE_ON_TUESDAY).success
        for _ in range(4):
            [request] = retrier.look(1_000)
            keys.append(request.run_key)
            pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication", tags=request.tags)

    assert len(set(keys)) == 4


def test_after_an_outage_of_brapi_the_window_is_launched_once_more(retrier: Retrier) -> None:
    pipeline = retrier.pipeline
    pipeline.sandbox.faults = [Fault(status=500)]
    pipeline.brapi = {"min_interval_seconds": 0.05}
    result = pipeline.run(LIVE_ON_TUESDAY)
    assert not result.success
    assert failure_of(result).startswith("Brapi is down: none of the first 12 requests")
    assert len(pipeline.sandbox.requests) < 50
    assert "is retried in" in retrier.look(60)

    [request] = retrier.look(301)
    assert request.asset_selection is None
    assert not pipeline.run(LIVE_ON_TUESDAY, tags=request.tags).success

    assert "was already retried" in retrier.look(1_000)


def test_what_another_try_does_not_help_is_not_tried(retrier: Retrier) -> None:
    retrier.pipeline.sandbox.faults = [Fault(status=401, code="INVALID_TOKEN")]
    assert not retrier.pipeline.run(LIVE_ON_TUESDAY).success

    assert "its last run did not end in an outage of Brapi" in retrier.look(1_000)


def test_nothing_is_retried_of_a_window_that_is_well(retrier: Retrier) -> None:
    assert retrier.pipeline.run(LIVE_ON_TUESDAY).success

    assert "Nothing has to be retried for" in retrier.look(1_000)


@pytest.mark.parametrize("seconds", [5, 20])
def test_a_clock_that_is_behind_costs_no_window(
    pipeline: Pipeline, set_clock: SetClock, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """The window has ended by the daemon's clock, and not by this machine's."""
    end = TUESDAY_15_00.replace(second=0)
    slept: list[float] = []

    def sleep(duration: float) -> None:
        slept.append(duration)
        set_clock(end)

    monkeypatch.setattr("market_data_pipeline.market.clock.sleep", sleep)
    set_clock(end - timedelta(seconds=seconds))

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert result.success
    assert slept[0] == seconds
    assert len(pipeline.documents({"source": "live"})) == len(pipeline.events()) == 50


def test_a_window_that_has_not_ended_is_a_failure(pipeline: Pipeline, set_clock: SetClock) -> None:
    set_clock(TUESDAY_15_00 - timedelta(minutes=5))

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert not result.success
    assert f"{LIVE_ON_TUESDAY} has not ended" in failure_of(result)
    assert pipeline.sandbox.requests == []


def test_what_a_failed_run_cost_is_recorded_for_the_pacing(pipeline: Pipeline) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    pipeline.sandbox.faults = [Fault(status=500)]
    assert not pipeline.run(LIVE_ON_TUESDAY).success

    quota = last_recorded(pipeline.instance, TUESDAY_15_00)
    assert quota is not None
    assert quota.left < 15_000 - 46
    assert quota.cost == 46


def test_missing_windows_are_filled_as_far_as_the_plan_reaches(pipeline: Pipeline) -> None:
    """What *Missing* in the dialog of a backfill launches: everything since PARTITIONS_START."""
    result = pipeline.run("2026-08-13T17:30-0300", "2026-08-18T17:30-0300", select="quotes")

    assert result.success
    stored = {
        quote.window_start.date().isoformat()
        for quote in pipeline.store.load(
            ["2026-08-13T17:30-0300", "2026-08-17T17:30-0300", "2026-08-18T17:30-0300"]
        )
    }
    assert stored == {"2026-08-17", "2026-08-18"}
    _, why = checks(result)["all_tickers_quoted"]
    assert "the history of the free plan reaches back 3mo" in why
