"""The rights that the chart gives its two accounts: enough, and nothing outside the runs."""

from __future__ import annotations

import pytest
from kubernetes import client

from market_data_pipeline_tests.kubernetes.chart import ACCOUNT, ACCOUNT_OF_RUNS, RULES
from market_data_pipeline_tests.kubernetes.release import NAMESPACE, Release

pytestmark = pytest.mark.kubernetes


@pytest.mark.parametrize("account", [ACCOUNT, ACCOUNT_OF_RUNS])
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
