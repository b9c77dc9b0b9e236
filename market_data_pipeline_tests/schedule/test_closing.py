"""The last window of a session is observed once more, when the plan can have the close."""

from datetime import timedelta

import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.brapi.quota import Quota, record
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline.settings import settings
from market_data_pipeline_tests.conftest import Pipeline, SetClock, at
from market_data_pipeline_tests.publication.helpers import quote
from market_data_pipeline_tests.schedule.conftest import ASSETS, Operation, Status

LAST = "2026-11-17T17:30-0300"
LAUNCHED = [[*ASSETS]]
NOTHING = f"Nothing is missing of {LAST}."


def observed(operation: Operation, key: str, seconds: float = 20, age: float = 30) -> None:
    """As if a window had been observed so long after its end, with a price of so many minutes."""
    end = WINDOWS.from_key(key).end
    seen = end + timedelta(seconds=seconds)
    traded = seen - timedelta(minutes=age)
    operation.store.save([quote(key, observed_at=seen, updated_at=traded)], [key])
    operation.materialize(key, "quotes", observed_minutes_after_end=seconds / 60)
    operation.materialize(key, "mongo_price_history", "kafka_publication")


@pytest.mark.parametrize(
    ("day", "plan", "due"),
    [
        ("2026-11-17", "free", "18:35"),
        ("2026-11-17", "startup", "18:20"),
        ("2026-11-17", "pro", "18:10"),
        ("2026-11-03", "free", "18:35"),
        ("2026-03-06", "free", "18:35"),
        ("2026-10-30", "free", ""),
        ("2026-10-30", "pro", ""),
        ("2026-03-09", "free", ""),
    ],
)
def test_it_is_due_when_the_plan_can_have_the_close_of_new_yorks_winter(
    operation: Operation, monkeypatch: pytest.MonkeyPatch, day: str, plan: str, due: str
) -> None:
    """New York's clocks change on 8 March and 1 November; in its summer B3 closes at 17:00."""
    monkeypatch.setenv("BRAPI_PLAN", plan)
    settings.cache_clear()
    observed(operation, f"{day}T17:30-0300")

    moments = [f"18:{minute:02}" for minute in range(1, 60, 3)] + [due] * bool(due)
    launched = {moment for moment in moments if operation.look(f"{day}T{moment}") == LAUNCHED}

    assert launched == {moment for moment in moments if due and moment >= due}


@pytest.mark.parametrize(
    ("seconds", "age", "said"),
    [
        (20, 30, LAUNCHED),
        (20, 0, NOTHING),  # all prices are of the close
        (29 * 60, 30, LAUNCHED),  # materialized by hand, too early
        (30 * 60, 35, NOTHING),  # it had all that the plan has
        (36 * 60, 35, NOTHING),  # this was it
    ],
)
def test_it_is_done_once_and_only_if_the_close_may_be_missing(
    operation: Operation, seconds: float, age: float, said: object
) -> None:
    observed(operation, LAST, seconds, age)

    assert operation.look("2026-11-17T18:36") == said


def test_it_is_done_once_even_if_none_of_its_answers_is_kept(
    pipeline: Pipeline, operation: Operation, set_clock: SetClock
) -> None:
    operation.instance, operation.store = pipeline.instance, pipeline.store
    set_clock(at("2026-11-17T18:00:05"))
    assert pipeline.run(LAST).success
    assert operation.look("2026-11-17T18:36") == LAUNCHED
    pipeline.sandbox.faults = [Fault(fields={"regularMarketPrice": 90_000})]
    before = pipeline.store.load([LAST])
    assert pipeline.run(LAST).success

    assert pipeline.store.load([LAST]) == before
    assert operation.look("2026-11-17T18:38") == NOTHING


def test_it_is_launched_again_if_that_run_failed_and_until_the_next_session(
    operation: Operation,
) -> None:
    observed(operation, LAST)
    operation.run(LAST, status=Status.FAILURE)

    assert "launched again in" in operation.look("2026-11-17T18:36", 20)
    assert operation.look("2026-11-17T18:36", 31) == LAUNCHED
    assert operation.look("2026-11-18T09:58", 31) == LAUNCHED
    assert operation.look("2026-11-18T10:01", 31) != LAUNCHED


def test_a_sink_does_not_wait_for_it(operation: Operation) -> None:
    observed(operation, LAST)
    operation.materialize(LAST, "quotes", "mongo_price_history")
    operation.run(LAST, "quotes", status=Status.CANCELED)

    assert operation.look("2026-11-17T18:36") == [["kafka_publication"]]


def test_where_the_quota_is_short_it_is_the_one_observation_of_a_session(
    operation: Operation,
) -> None:
    """Nine sessions are left in November."""
    quota = Quota(9 * 50, 15_000, 50, at("2026-11-30T21:00"), "billing-cycle")
    operation.instance.report_runless_asset_event(record(quota))
    paced = "The next one is at Tue 17 Nov 18:35."

    assert str(operation.tick("2026-11-17T17:59")).endswith(paced)
    assert str(operation.look("2026-11-17T18:01")).endswith(paced)
    assert operation.look("2026-11-17T18:35") == LAUNCHED
    observed(operation, LAST, 36 * 60)
    assert operation.look("2026-11-17T18:37") == NOTHING
