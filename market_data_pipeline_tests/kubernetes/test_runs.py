"""What becomes of runs in pods, and of their windows, when pods end."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import count

import pytest
from brapi_sandbox.answers import stamp

from market_data_pipeline_tests.deploy.set_back import MINUTE
from market_data_pipeline_tests.deploy.webserver import (
    Run,
    launch_backfill,
    launch_run,
    terminate_run,
    why_it_failed,
)
from market_data_pipeline_tests.kubernetes.control_plane import ControlPlane
from market_data_pipeline_tests.kubernetes.release import (
    CODE,
    DAEMON,
    LOCATION,
    NAMESPACE,
    Release,
)
from market_data_pipeline_tests.services.deployment import (
    ASSETS,
    BEGINNING,
    PUBLISH_HISTORY,
    TICKERS,
    key_of,
    repeated,
)

pytestmark = pytest.mark.kubernetes

_numbers = count(1)


@pytest.fixture
def window() -> datetime:
    """A window of the past that no other test uses."""
    return BEGINNING - (30 + next(_numbers)) * MINUTE


class Backfill:
    """A run for one window that publishes it."""

    def __init__(self, release: Release, window: datetime) -> None:
        self._release, self._key = release, key_of(window)
        self._id = release.wait_for(
            lambda _: launch_backfill(release.url, ASSETS, [self._key], PUBLISH_HISTORY)
        )

    def runs(self, found: list[Run]) -> list[Run]:
        """Its runs, the first one first."""
        return [run for run in reversed(found) if run.tags.get("dagster/backfill") == self._id]

    def pod(self) -> str:
        """The pod of its first run, once the run has started: Brapi may keep it waiting then."""

        def started(found: list[Run]) -> str | None:
            runs = self.runs(found)
            ready = runs and runs[0].status == "STARTED"
            return self._release.pod_of(runs[0].id) if ready else None

        return self._release.wait_for(started)

    def until_it_ends(self, *statuses: str) -> list[Run]:
        """Waits until its runs have ended like this."""

        def ended(found: list[Run]) -> list[Run]:
            runs = self.runs(found)
            return runs if tuple(run.status for run in runs) == statuses else []

        return self._release.wait_for(ended)


def published(release: Release, window: datetime) -> Counter[str]:
    """How often each ticker of the window is on the topic."""
    start = ("ce_windowstart", stamp(window).encode())
    return Counter(
        seen.event.key.decode() for seen in release.events() if start in seen.event.headers
    )


def check(release: Release, window: datetime) -> None:
    """The window is stored and published, whole and once."""
    documents = [one for one in release.documents() if one["window_start"] == window]
    stored = {one["ticker"] for one in documents}
    assert repeated(documents) == 0
    assert len(stored) > len(TICKERS) / 2
    assert published(release, window) == Counter(stored)


def test_the_first_run_is_a_job_that_succeeds(release: Release) -> None:
    run = release.wait_for(
        lambda runs: next((run for run in runs if run.status == "SUCCESS"), None)
    )
    job = release.job_of(run.id)
    release.wait_for(lambda _: release.job_of(run.id).status.succeeded)
    assert job.metadata.labels["dagster/run-id"] == run.id
    key = run.tags["dagster/partition"]
    window = datetime.strptime(key, "%Y-%m-%dT%H:%M%z").astimezone(UTC)
    assert window in {one["window_start"] for one in release.documents()}
    # A machine that is too slow for windows of a minute publishes none of it.
    assert published(release, window) in (Counter(), Counter(TICKERS))


@pytest.mark.parametrize("how", ["killed", "evicted"])
def test_a_pod_that_ends_is_a_run_that_failed_and_is_in_nobodys_way(
    release: Release, window: datetime, how: str
) -> None:
    release.sandbox.latency = 4
    backfill = Backfill(release, window)
    pod = backfill.pod()
    if how == "killed":
        release.node.kill(pod)
    else:  # what a drain of the node does
        release.core.create_namespaced_pod_eviction(pod, NAMESPACE, {"metadata": {"name": pod}})
    release.sandbox.latency = 0

    (run,) = backfill.until_it_ends("FAILURE")
    if how == "killed":
        assert "K8s job has no active pods" in why_it_failed(release.url, run.id)[-1]
    # Its turn is free.
    Backfill(release, window).until_it_ends("SUCCESS")
    check(release, window)


def test_a_run_outlives_the_api_server_although_the_run_monitor_gives_it_up(
    release: Release, control_plane: ControlPlane, window: datetime
) -> None:
    release.sandbox.latency = 4
    backfill = Backfill(release, window)
    backfill.pod()
    control_plane.stop_api()
    release.wait_for(lambda found: backfill.runs(found)[0].status == "FAILURE")
    control_plane.start_api()
    release.sandbox.latency = 0

    backfill.until_it_ends("SUCCESS")
    check(release, window)


def test_a_run_outlives_its_code_location(release: Release, window: datetime) -> None:
    release.sandbox.latency = 1
    backfill = Backfill(release, window)
    backfill.pod()
    (pod,) = release.pods_of(CODE)
    release.node.kill(pod)
    release.sandbox.latency = 0

    backfill.until_it_ends("SUCCESS")
    check(release, window)


def test_a_queued_run_needs_no_code_location_as_its_pod_has_the_code(
    release: Release, window: datetime
) -> None:
    release.scale(DAEMON, 0)
    run = release.wait_for(
        lambda _: launch_run(release.url, LOCATION, "market_data_job", key_of(window))
    )
    release.scale(CODE, 0)
    release.scale(DAEMON, 1)

    release.wait_for(lambda runs: (run, "SUCCESS") in [(each.id, each.status) for each in runs])
    release.scale(CODE, 1)
    assert {one["window_start"] for one in release.documents()} >= {window}


def test_a_run_that_is_terminated_leaves_nothing(release: Release, window: datetime) -> None:
    release.sandbox.latency = 4
    backfill = Backfill(release, window)
    backfill.pod()
    (run,) = release.wait_for(backfill.runs)
    terminate_run(release.url, run.id)
    release.sandbox.latency = 0

    backfill.until_it_ends("CANCELED")
    release.wait_for(lambda _: not release.pod_of(run.id))
    assert published(release, window) == Counter()
    jobs = release.batch.list_namespaced_job(NAMESPACE).items
    assert f"dagster-run-{run.id}" not in [job.metadata.name for job in jobs]
