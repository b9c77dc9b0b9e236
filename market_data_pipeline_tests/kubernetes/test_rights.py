"""The rights that the chart gives its two accounts: enough, and nothing outside the runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client

from market_data_pipeline_tests.kubernetes.chart import ACCOUNT, ACCOUNT_OF_RUNS, RULES
from market_data_pipeline_tests.kubernetes.release import NAMESPACE, Release

pytestmark = pytest.mark.kubernetes


@pytest.fixture(params=[ACCOUNT, ACCOUNT_OF_RUNS])
def account(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_account_may_do_what_the_chart_says_and_nothing_else(
    release: Release, account: str
) -> None:
    with release.control_plane.api(release.node.token(account)) as api:
        review = {"spec": {"namespace": NAMESPACE}}
        answer = client.AuthorizationV1Api(api).create_self_subject_rules_review(review)
    given = {
        (group, resource): set(rule.verbs)
        for rule in answer.status.resource_rules
        for group in rule.api_groups
        for resource in rule.resources
    }
    # What every account may ask about itself.
    own = {group for group, _ in given} - {"", "batch"}
    assert own <= {"authorization.k8s.io", "authentication.k8s.io"}
    assert {key: verbs for key, verbs in given.items() if key[0] not in own} == {
        (group, resource): set(rule["verbs"])
        for rule in RULES
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_what_is_outside_is_refused(release: Release, account: str) -> None:
    with release.control_plane.api(release.node.token(account)) as api:
        core, batch = client.CoreV1Api(api), client.BatchV1Api(api)
        refused: list[Callable[[], Any]] = [
            lambda: core.list_namespaced_secret(NAMESPACE),
            lambda: core.read_namespaced_secret("market-data-secrets", NAMESPACE),
            lambda: core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "own"}}),
            lambda: core.list_namespaced_pod("kube-system"),
            lambda: core.list_node(),
            lambda: core.create_namespaced_service_account_token(
                "default", NAMESPACE, {"spec": {"audiences": []}}
            ),
            lambda: batch.list_namespaced_job("default"),
            lambda: batch.create_namespaced_cron_job(NAMESPACE, {"metadata": {"name": "own"}}),
            lambda: client.AppsV1Api(api).list_namespaced_deployment(NAMESPACE),
            lambda: client.RbacAuthorizationV1Api(api).list_namespaced_role(NAMESPACE),
        ]
        for ask in refused:
            with pytest.raises(client.ApiException) as error:
                ask()
            assert error.value.status == 403
        batch.list_namespaced_job(NAMESPACE)  # the token is a good one
