"""What the API server says of the pods and Jobs that our values lead to."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from kubernetes import client

from market_data_pipeline_tests.kubernetes.chart import Manifest, manifests, values_with
from market_data_pipeline_tests.kubernetes.release import NAMESPACE, Release

pytestmark = pytest.mark.kubernetes


def job_of_a_run(release: Release) -> Manifest:
    """The Job of the first run, as it was asked for: without what the API server adds."""
    run = release.wait_for(lambda runs: runs)[-1]
    job = release.wait_for(lambda _: release.batch.list_namespaced_job(NAMESPACE).items)[0]
    assert job.metadata.name == f"dagster-run-{run.id}"
    manifest = release.api.sanitize_for_serialization(job)
    spec = manifest["spec"]
    for added in ("selector", "suspend", "podReplacementPolicy"):
        spec.pop(added, None)
    for labels in (manifest["metadata"]["labels"], spec["template"]["metadata"]["labels"]):
        for added in [name for name in labels if "controller-uid" in name or "job-name" in name]:
            del labels[added]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "again", "labels": manifest["metadata"]["labels"]},
        "spec": spec,
    }


def pod_of(template: Manifest) -> Manifest:
    """A pod as a controller makes it of a template."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "again", "labels": template["metadata"]["labels"]},
        "spec": copy.deepcopy(template["spec"]) | {"restartPolicy": "Never"},
    }


def templates(release: Release) -> dict[str, Manifest]:
    """The pod templates of the three processes and of a run."""
    made = manifests(release.values, NAMESPACE)
    found = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]
        for manifest in made
        if manifest["kind"] == "Deployment"
    }
    return found | {"run": job_of_a_run(release)["spec"]["template"]}


def test_the_job_of_a_run_has_no_field_that_the_api_does_not_know(release: Release) -> None:
    job = job_of_a_run(release)
    strictly: dict[str, Any] = {"dry_run": "All", "field_validation": "Strict"}
    release.batch.create_namespaced_job(NAMESPACE, job, **strictly)

    job["spec"]["ttlSecondsAfterFinnished"] = 60
    with pytest.raises(client.ApiException, match="unknown field"):
        release.batch.create_namespaced_job(NAMESPACE, job, **strictly)


@pytest.mark.parametrize(
    "missing", ["runAsNonRoot", "allowPrivilegeEscalation", "capabilities", "seccompProfile"]
)
def test_every_pod_is_restricted_and_one_that_may_do_more_is_refused(
    release: Release, missing: str
) -> None:
    for template in templates(release).values():
        pod = pod_of(template)
        release.core.create_namespaced_pod(NAMESPACE, pod, dry_run="All")
        del pod["spec"]["containers"][0]["securityContext"][missing]
        with pytest.raises(client.ApiException, match="violates PodSecurity") as refused:
            release.core.create_namespaced_pod(NAMESPACE, pod, dry_run="All")
        assert refused.value.status == 403
        assert missing in str(refused.value.body)


def test_a_run_asks_for_what_the_values_say_and_for_the_secrets_by_name(release: Release) -> None:
    job = job_of_a_run(release)
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    values = values_with()
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    (deployment,) = values["dagster-user-deployments"]["deployments"]

    image = deployment["image"]
    assert container["image"] == f"{image['repository']}:{image['tag']}"
    assert container["imagePullPolicy"] == launcher["imagePullPolicy"]
    assert container["resources"] == deployment["resources"]
    assert container["securityContext"] == launcher["securityContext"]
    assert template["spec"]["restartPolicy"] == "Never"
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600
    assert job["spec"]["backoffLimit"] == 0
    assert {"secretRef": {"name": "market-data-secrets"}} in container["envFrom"]
    for secret in release.core.list_namespaced_secret(NAMESPACE).items:
        for value in release.node.secret(secret.metadata.name).values():
            assert value not in str(job)
