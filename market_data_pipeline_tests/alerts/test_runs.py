"""A run that failed is told until it is made good."""

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
from market_data_pipeline.settings import settings
from market_data_pipeline_tests.alerts.conftest import Chat, Watch
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TOKEN, Pipeline

NOON, HALF_PAST = "2026-11-17T12:00-0300", "2026-11-17T12:30-0300"
FAILED = f"*run of everything for {NOON} failed*"
RESOLVED = f"*Resolved: run of everything for {NOON} failed.*"


def ended(
    watch: Watch, succeeds: bool, first: str = "", last: str = "", job: str = "everything"
) -> str:
    """A run for a window, for all from `first` to `last`, or for none; its id."""

    @dg.op
    def step(context: dg.OpExecutionContext) -> None:
        if not succeeds:
            raise dg.Failure("MongoDB is <away>:\nstart it.")

    tags = {"dagster/partition": first} if first else {}
    if last:
        ends = {"start": first, "end": last}
        tags = {f"dagster/asset_partition_range_{end}": ends[end] for end in ends}
    ran = dg.GraphDefinition(job, node_defs=[step]).to_job()
    return ran.execute_in_process(instance=watch.instance, raise_on_error=False, tags=tags).run_id


def told(chat: Chat) -> list[int]:
    return [sum(head in text for text in chat.taken) for head in (FAILED, RESOLVED)]


def test_it_says_which_run_and_why(watch: Watch, chat: Chat) -> None:
    run_id = ended(watch, False, NOON)
    watch.at()
    watch.at()

    assert chat.taken == [
        f"{FAILED}\n> step: MongoDB is &lt;away&gt;: start it.\nRun {run_id}",
    ]


def test_a_range_and_no_window_at_all(watch: Watch, chat: Chat) -> None:
    ended(watch, False, NOON, HALF_PAST)
    ended(watch, False, job="accept_moves")
    watch.at()

    assert f"*run of everything for {NOON} to {HALF_PAST} failed*" in chat.taken[0]
    assert "*run of accept_moves failed*" in chat.taken[0]
    ended(watch, True, job="accept_moves")
    ended(watch, True, HALF_PAST)
    watch.at()
    assert chat.taken[1] == "*Resolved: run of accept_moves failed.*"
    ended(watch, True, "2026-11-17T11:30-0300", HALF_PAST)
    watch.at()
    assert len(chat.taken) == 3


@pytest.mark.parametrize(
    ("first", "last", "job", "resolved"),
    [
        (NOON, "", "everything", 1),
        (HALF_PAST, "", "everything", 1),
        ("2026-11-17T11:30-0300", HALF_PAST, "everything", 1),
        ("2026-11-17T11:30-0300", "", "everything", 0),
        (NOON, "", "another", 0),
    ],
)
def test_it_is_made_good_by_a_later_run_of_the_job(
    watch: Watch, chat: Chat, first: str, last: str, job: str, resolved: int
) -> None:
    ended(watch, False, NOON)
    watch.at()
    ended(watch, True, first, last, job)
    for _ in range(3):
        watch.at()

    assert told(chat) == [1, resolved]


def test_two_sinks_that_failed_are_both_made_good_before_it_is_over(
    watch: Watch, chat: Chat
) -> None:
    """A sink is retried alone, as a run of the same job."""
    away = {"mongo", "kafka"}

    def run(*sinks: str) -> None:
        def step(name: str) -> dg.OpDefinition:
            @dg.op(name=name)
            def sink() -> None:
                if name in away:
                    raise dg.Failure(f"{name} is away.")

            return sink

        dg.GraphDefinition(
            "everything", node_defs=[step(each) for each in sinks]
        ).to_job().execute_in_process(
            instance=watch.instance, raise_on_error=False, tags={"dagster/partition": NOON}
        )

    run("quotes", "mongo", "kafka")
    watch.at()
    away.remove("mongo")
    run("mongo")
    watch.at()
    assert told(chat) == [1, 0]
    away.remove("kafka")
    run("kafka")
    watch.at()

    assert told(chat) == [1, 1]


def test_a_run_that_succeeded_before_makes_nothing_good(watch: Watch, chat: Chat) -> None:
    ended(watch, True, NOON)
    ended(watch, False, NOON)
    watch.at()

    assert told(chat) == [1, 0]


def test_the_same_window_again_and_again_is_one_incident(watch: Watch, chat: Chat) -> None:
    for _ in range(3):
        ended(watch, False, NOON)
        watch.at()
    ended(watch, True, NOON)
    watch.at()
    assert told(chat) == [1, 1]

    ended(watch, False, NOON)
    watch.at()
    assert told(chat) == [2, 1]


def test_it_stays_open_for_days(watch: Watch, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(watch, False, NOON)
    today = datetime.now(UTC)
    for day in (17, 18, 19, 23):
        passed = timedelta(days=day - 17)
        monkeypatch.setattr(clock, "record_now", lambda passed=passed: today + passed)
        watch.at(f"2026-11-{day}T11:00")

    assert told(chat) == [1, 0]
    ended(watch, True, NOON)
    watch.at("2026-11-23T11:01")
    assert told(chat) == [1, 1]


def test_what_failed_before_the_sensor_was_switched_on_is_not_told(
    watch: Watch, chat: Chat
) -> None:
    ended(watch, False, NOON)
    watch.cursor = None
    for _ in range(3):
        watch.at()

    assert chat.taken == []


def test_a_run_of_another_code_location_is_not_told(watch: Watch, chat: Chat) -> None:
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="of_others"))
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "everything")
    job = dg.GraphDefinition("everything", node_defs=[]).to_job()
    run = watch.instance.create_run_for_job(job, remote_job_origin=origin)
    watch.instance.report_run_failed(run)
    watch.at()

    assert chat.taken == []


def test_a_run_without_a_step_that_failed_is_told_too(watch: Watch, chat: Chat) -> None:
    job = dg.GraphDefinition("everything", node_defs=[]).to_job()
    watch.instance.report_run_failed(watch.instance.create_run_for_job(job))
    watch.at()

    assert "> No step failed: see the log of the run." in chat.taken[0]


def test_of_an_error_that_is_not_ours_only_the_name_is_told(watch: Watch, chat: Chat) -> None:
    @dg.op
    def breaks() -> None:
        raise RuntimeError("password=word-77aa")

    dg.GraphDefinition("odd", node_defs=[breaks]).to_job().execute_in_process(
        instance=watch.instance, raise_on_error=False
    )
    watch.at()

    assert "> breaks: RuntimeError, see the log of the run" in chat.taken[0]
    assert "word-77aa" not in chat.taken[0]


def test_the_link_leads_to_the_run(
    watch: Watch, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_URL", "https://dagster.example/")
    settings.cache_clear()
    run_id = ended(watch, False, NOON)
    watch.at()

    assert chat.taken[0].endswith(f"<https://dagster.example/runs/{run_id}|open>")


def test_a_refused_token_is_told_in_the_words_of_the_run(
    pipeline: Pipeline, watch: Watch, chat: Chat
) -> None:
    watch.instance, watch.store = pipeline.instance, pipeline.store
    watch.materialize("2026-11-17T14:00-0300")
    pipeline.brapi = {"token": "wrong-token"}
    assert not pipeline.run(LIVE_ON_TUESDAY).success
    watch.at("2026-11-17T15:05")
    pipeline.brapi = {}
    assert pipeline.run(LIVE_ON_TUESDAY).success
    watch.at("2026-11-17T15:06")

    failed, resolved = chat.taken
    head, reason, *_ = failed.splitlines()
    assert head == f"*run of everything for {LIVE_ON_TUESDAY} failed*"
    assert reason.startswith("> quotes: Brapi answered 401 INVALID_TOKEN")
    assert reason.endswith("Set BRAPI_TOKEN to a valid one.")
    assert resolved == f"*Resolved: {head[1:-1]}.*"
    assert not [secret for secret in ("wrong-token", TOKEN) if secret in failed]
