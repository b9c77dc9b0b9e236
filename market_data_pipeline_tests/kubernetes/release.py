"""The pipeline in a cluster, as our values make it, with real services around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from brapi_sandbox.sandbox import Sandbox
from kubernetes import client
from kubernetes.utils import create_from_dict

from market_data_pipeline_tests.deploy.set_back import SetBack
from market_data_pipeline_tests.kubernetes.chart import (
    FULL_NAME,
    USER_CODE,
    Values,
    manifests,
    values_with,
)
from market_data_pipeline_tests.kubernetes.control_plane import ControlPlane
from market_data_pipeline_tests.kubernetes.node import Node
from market_data_pipeline_tests.services.deployment import BEGINNING, Operated
from market_data_pipeline_tests.services.postgres import PASSWORD, Postgres
from market_data_pipeline_tests.supervised import free_ports

NAMESPACE = "market-data"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
LOCATION = "market-data"
CODE, DAEMON = f"{USER_CODE}-{LOCATION}", f"{FULL_NAME}-daemon"


class Release(Operated):
    """The three processes and the runs, in pods; a context manager.

    Args:
        control_plane: of an empty cluster.
        folder: where pods have their files; every user may write there.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        folder: Path,
        sandbox: Sandbox,
        postgres: Postgres,
        mongo_uri: str,
        kafka: str,
    ) -> None:
        self.control_plane, self.sandbox = control_plane, sandbox
        self.mongo_uri, self.kafka = mongo_uri, kafka
        self.database = self.topic = "kubernetes"
        clock = SetBack(BEGINNING)
        sandbox.now = clock.now
        port, code = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        settings = {
            "QUOTES_PATH": str(folder / "quotes"),
            "BRAPI_BASE_URL": sandbox.url,
            "BRAPI_PLAN": "pro",
            "BRAPI_MIN_INTERVAL_SECONDS": "0.01",
            "PUBLISH_MADE_UP_PRICES": "true",
            "MONGO_DB": self.database,
            "KAFKA_TOPIC": self.topic,
            **clock.settings,
        }
        self.values = values_with(_for_this_machine(port, code, postgres.port, settings))
        self.node = Node(
            control_plane,
            NAMESPACE,
            folder,
            services=[LOCATION, self.values["postgresql"]["postgresqlHost"]],
        )
        self.api = control_plane.api()
        self.core, self.batch = client.CoreV1Api(self.api), client.BatchV1Api(self.api)
        self._secrets = {
            "market-data-secrets": {
                "BRAPI_TOKEN": "token-of-the-tests",
                "MONGO_URI": mongo_uri,
                "KAFKA_BOOTSTRAP_SERVERS": kafka,
            },
            "dagster-postgresql-secret": {"postgresql-password": PASSWORD},
        }

    def __enter__(self) -> Self:
        self.core.create_namespace({"metadata": {"name": NAMESPACE, "labels": RESTRICTED}})
        for name, data in self._secrets.items():
            secret = {"metadata": {"name": name}, "stringData": data}
            self.core.create_namespaced_secret(NAMESPACE, secret)
        for manifest in manifests(self.values, NAMESPACE):
            create_from_dict(self.api, manifest, namespace=NAMESPACE, field_validation="Strict")
        self.node.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.node.__exit__()
        self.api.close()

    def watch(self) -> None:
        self.node.check()

    def state(self) -> list[str]:
        """What pods there are, and the end of their output."""
        pods = self.core.list_namespaced_pod(NAMESPACE).items
        names = [(pod.metadata.name, pod.status.phase) for pod in pods]
        return [f"{name} {phase}\n{self.node.log(name)[-2000:]}" for name, phase in names]

    def job_of(self, run: str) -> client.V1Job:
        """The Job of a run."""
        return self.batch.read_namespaced_job(f"dagster-run-{run}", NAMESPACE)

    def pod_of(self, run: str) -> str | None:
        """The name of a run's pod, once it runs."""
        selector = f"job-name=dagster-run-{run}"
        pods = self.core.list_namespaced_pod(NAMESPACE, label_selector=selector).items
        return next((p.metadata.name for p in pods if p.status.phase == "Running"), None)

    def pods_of(self, deployment: str) -> list[str]:
        """The names of the pods of a Deployment."""
        selector = f"deployment={deployment}"
        pods = self.core.list_namespaced_pod(NAMESPACE, label_selector=selector).items
        return [pod.metadata.name for pod in pods]

    def scale(self, deployment: str, replicas: int) -> None:
        """Sets how many pods a Deployment has, and waits until it has them."""
        apps = client.AppsV1Api(self.api)
        body = {"spec": {"replicas": replicas}}
        apps.patch_namespaced_deployment_scale(deployment, NAMESPACE, body)
        self.wait_for(lambda _: len(self.pods_of(deployment)) == replicas)


def _for_this_machine(webserver: int, code: int, postgres: int, settings: dict[str, str]) -> Values:
    """What is not as in production: ports, the settings, and how long a test wants to wait."""
    (deployment,) = values_with()["dagster-user-deployments"]["deployments"]
    module = "market_data_pipeline_tests.deploy.minutes"
    own: dict[str, Any] = {
        "port": code,
        "codeServerArgs": ["--module-name", module],
        "env": deployment["env"] | settings,
    }
    return {
        "dagsterWebserver": {"service": {"port": webserver}},
        "postgresql": {"postgresqlDatabase": "postgres", "service": {"port": postgres}},
        "dagster-user-deployments": {"deployments": [deployment | own]},
        "dagsterDaemon": {"runMonitoring": {"pollIntervalSeconds": 2}},
    }
