"""A run that is launched a minute before its window ends: what it does until then, and after."""

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from market_data_pipeline.market import clock
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline, SetClock, at
from market_data_pipeline_tests.observed import checks, failure_of, logs, said
from market_data_pipeline_tests.record.helpers import NOWHERE
from market_data_pipeline_tests.schedule.conftest import ASSETS, dagsters_clock
from market_data_pipeline_tests.supervised import wait_until

END = at("2026-11-17T15:00")
pytestmark = pytest.mark.usefixtures("four_instruments")


@pytest.fixture
def slept(set_clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """How long runs sleep, by a clock that stands still but then; Dagster's is the same."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        if seconds:
            slept.append(round(seconds, 1))
            set_clock(clock.utc_now() + timedelta(seconds=seconds))

    monkeypatch.setattr(clock, "sleep", sleep)
    with dagsters_clock():
        yield slept


@pytest.mark.parametrize(
    ("seconds", "waits", "first"),
    [
        (0.2, [0.2], LIVE_ON_TUESDAY),
        (50, [45, 5], "2026-11-17T14:00-0300"),
        (89, [84, 5], LIVE_ON_TUESDAY),
    ],
)
def test_it_waits_for_the_end_of_its_last_window_and_asks_then(
    pipeline: Pipeline,
    set_clock: SetClock,
    slept: list[float],
    seconds: float,
    waits: list[float],
    first: str,
) -> None:
    """Or for a little longer: its clock may be behind that of the daemon that has launched it."""
    set_clock(END - timedelta(seconds=seconds))

    result = pipeline.run(first, LIVE_ON_TUESDAY if first != LIVE_ON_TUESDAY else None)

    assert result.success
    assert slept[: len(waits)] == waits
    documents = pipeline.documents()
    assert {document["source"] for document in documents} == {"live"}
    assert min(document["observed_at"] for document in documents) >= END
    assert len(documents) == len(pipeline.events()) == 4
    assert all(passed for passed, _ in checks(result).values())
    for asset in ASSETS:
        *_, event = result.asset_materializations_for_node(asset)
        assert event.partition == LIVE_ON_TUESDAY


@pytest.mark.parametrize(("seconds", "in_words"), [(91, "91 s"), (300, "5 min")])
def test_a_window_that_ends_later_is_refused(
    pipeline: Pipeline, set_clock: SetClock, slept: list[float], seconds: int, in_words: str
) -> None:
    set_clock(END - timedelta(seconds=seconds))

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert failure_of(result) == (
        f"{LIVE_ON_TUESDAY} has not ended: materialize it in {in_words}, or set this machine's "
        "clock."
    )
    assert pipeline.sandbox.requests == []


def test_what_cannot_work_is_said_before_the_window_ends(
    pipeline: Pipeline, set_clock: SetClock, slept: list[float]
) -> None:
    set_clock(END - timedelta(seconds=50))
    pipeline.brapi = {"token": ""}
    assert "BRAPI_TOKEN is not set" in failure_of(pipeline.run(LIVE_ON_TUESDAY))
    pipeline.folder.touch()  # a file
    assert "Check QUOTES_PATH" in failure_of(pipeline.run(LIVE_ON_TUESDAY))
    assert slept == []


def test_a_service_that_is_away_is_told_before_the_window_ends_and_costs_no_price(
    pipeline: Pipeline, set_clock: SetClock, slept: list[float]
) -> None:
    set_clock(END - timedelta(seconds=50))
    pipeline.mongo_uri = NOWHERE
    with pipeline.without_kafka():
        result = pipeline.run(LIVE_ON_TUESDAY)

    said = logs(pipeline, result)
    for warning in ("MongoDB is not ready: No MongoDB server answered at", "Kafka is not ready: "):
        assert re.search(f"{warning}.*Ingestion completed", said, re.DOTALL)
    assert len(pipeline.store.load([LIVE_ON_TUESDAY])) == 4


def test_a_service_that_does_not_answer_is_not_waited_for(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it does, the first request is sent at the end of the window."""
    asked: list[int] = []

    def trouble(_: object) -> str:
        clock.sleep(30)
        asked.append(len(pipeline.sandbox.requests))
        return ""

    monkeypatch.setattr("market_data_pipeline.publication.kafka.Kafka.connect", trouble)
    behind = datetime.now(UTC) - END + timedelta(seconds=3)
    monkeypatch.setattr(clock, "utc_now", lambda: datetime.now(UTC) - behind)

    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    assert asked == []


def test_while_it_waits_another_run_may_ask(
    pipeline: Pipeline,
    instance: dg.DagsterInstance,
    set_clock: SetClock,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For the window before, which is live until then."""
    pipeline.instance = instance
    set_clock(END + timedelta(minutes=29))
    sleep_on, others = clock.sleep, list[str]()
    with ThreadPoolExecutor(1) as thread:

        def sleep(seconds: float) -> None:
            if not others:
                others.append(LIVE_ON_TUESDAY)
                assert thread.submit(pipeline.run, LIVE_ON_TUESDAY).result(timeout=60).success
            sleep_on(seconds)

        monkeypatch.setattr(clock, "sleep", sleep)
        assert pipeline.run("2026-11-17T15:00-0300").success

    assert {document["source"] for document in pipeline.documents()} == {"live"}
    assert len(pipeline.documents()) == len(pipeline.events()) == 8


def test_of_two_that_wait_one_asks_after_the_other(
    pipeline: Pipeline,
    instance: dg.DagsterInstance,
    set_clock: SetClock,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline.instance = instance
    set_clock(END - timedelta(seconds=50))
    sleep_on = clock.sleep
    with ThreadPoolExecutor(1) as thread:
        others: list[Future[dg.ExecuteInProcessResult]] = []

        def sleep(seconds: float) -> None:
            if not others and 0 < seconds <= 5:  # it has the turn
                others.append(thread.submit(pipeline.run, LIVE_ON_TUESDAY))
                wait_until(lambda: said(instance, "Waiting for another run to release"), "it waits")
            sleep_on(seconds)

        monkeypatch.setattr(clock, "sleep", sleep)
        first, second = pipeline.run(LIVE_ON_TUESDAY), others[0].result()

    assert first.success
    assert second.success
    asked = [seen.path for seen in pipeline.sandbox.requests if "quote" in seen.path]
    assert sorted(asked[:4]) == sorted(asked[4:]), "one after the other"
    assert len(pipeline.documents()) == 4
    assert len(pipeline.events()) == 8
