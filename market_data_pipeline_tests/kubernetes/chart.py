"""What Dagster's Helm chart makes of our values, as far as our values reach.

The chart itself is on no package index. This follows its templates of version 1.13: names, what
goes into `dagster.yaml`, which variables a process and a run get, and the rights in the cluster.
Init containers, probes, Services and PodDisruptionBudgets are left out. `rendered.py` compares it
with what the chart itself makes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import yaml

from market_data_pipeline_tests.supervised import ROOT

Values = dict[str, Any]
Manifest = dict[str, Any]

RELEASE = "dagster"
# The chart and its subchart name things after the release and themselves.
FULL_NAME, USER_CODE = "dagster", "dagster-dagster-user-deployments"
ACCOUNT, ACCOUNT_OF_RUNS = FULL_NAME, f"{USER_CODE}-user-deployments"
INSTANCE, WORKSPACE = f"{FULL_NAME}-instance", f"{FULL_NAME}-workspace-yaml"
DEFAULTS: Values = {
    "global": {"dagsterHome": "/opt/dagster/dagster_home"},
    "runLauncher": {"config": {"k8sRunLauncher": {"loadInclusterConfig": True}}},
}
EVERY_VERB = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
READING = ["get", "watch", "list"]
RULES = [
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": EVERY_VERB},
    {"apiGroups": ["batch"], "resources": ["jobs/status"], "verbs": READING},
    {"apiGroups": [""], "resources": ["pods", "events"], "verbs": EVERY_VERB},
    {"apiGroups": [""], "resources": ["pods/log", "pods/status"], "verbs": READING},
]


def values_with(*overrides: Mapping[str, Any]) -> Values:
    """Our values with others over them, as `--values` does it: a list is taken as a whole."""
    ours = yaml.safe_load((ROOT / "deploy" / "helm-values.yaml").read_text())
    return reduce(_over, [ours, *overrides], DEFAULTS)


def _over(base: Any, override: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(override, Mapping):
        return override
    return {**base, **{key: _over(base.get(key), value) for key, value in override.items()}}


def manifests(values: Values, namespace: str) -> list[Manifest]:
    """Everything in the cluster that the release consists of, in the order of its dependencies."""
    return [
        *_rights(ACCOUNT, FULL_NAME),
        *_rights(ACCOUNT_OF_RUNS, USER_CODE),
        *_config_maps(values, namespace),
        *_deployments(values, namespace),
    ]


def _rights(account: str, name: str) -> list[Manifest]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"{name}-role"}
    bound = {"subjects": [{"kind": "ServiceAccount", "name": account}], "roleRef": reference}
    return [
        _object("v1", "ServiceAccount", account),
        _object("rbac.authorization.k8s.io/v1", "Role", f"{name}-role", rules=RULES),
        _object("rbac.authorization.k8s.io/v1", "RoleBinding", f"{name}-rolebinding", **bound),
    ]


def _config_maps(values: Values, namespace: str) -> list[Manifest]:
    deployments = values["dagster-user-deployments"]["deployments"]
    shared = {"DAGSTER_HOME": values["global"]["dagsterHome"]}
    shared["DAGSTER_K8S_PIPELINE_RUN_NAMESPACE"] = namespace
    servers = [
        {"grpc_server": {"host": each["name"], "port": each["port"], "location_name": each["name"]}}
        for each in deployments
    ]
    data = {
        INSTANCE: {"dagster.yaml": yaml.safe_dump(instance(values, namespace))},
        WORKSPACE: {"workspace.yaml": yaml.safe_dump({"load_from": servers})},
        f"{FULL_NAME}-daemon-env": shared,
        f"{FULL_NAME}-webserver-env": shared,
        f"{USER_CODE}-user-deployments-shared-env": shared,
        **{_variables(each): each["env"] for each in deployments},
    }
    return [_object("v1", "ConfigMap", name, data=entries) for name, entries in data.items()]


def _variables(deployment: Mapping[str, Any]) -> str:
    return f"{USER_CODE}-{deployment['name']}-user-env"


def instance(values: Values, namespace: str) -> dict[str, Any]:
    """The `dagster.yaml` of every process and every run."""
    daemon, retention, server = values["dagsterDaemon"], values["retention"], values["postgresql"]
    monitoring = daemon["runMonitoring"]
    postgres = {
        "username": server["postgresqlUsername"],
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "hostname": server["postgresqlHost"],
        "db_name": server["postgresqlDatabase"],
        "port": server["service"]["port"],
        "params": {},
        "scheme": server["postgresqlScheme"],
    }
    storages = {
        "schedule_storage": ("dagster_postgres.schedule_storage", "PostgresScheduleStorage"),
        "run_storage": ("dagster_postgres.run_storage", "PostgresRunStorage"),
        "event_log_storage": ("dagster_postgres.event_log", "PostgresEventLogStorage"),
    }
    return {
        "scheduler": _class("dagster.core.scheduler", "DagsterDaemonScheduler"),
        **{name: _class(*kind, {"postgres_db": postgres}) for name, kind in storages.items()},
        "run_launcher": _class("dagster_k8s", "K8sRunLauncher", _launcher(values, namespace)),
        "run_coordinator": daemon["runCoordinator"]["config"]["customRunCoordinator"],
        "compute_logs": _class(
            "dagster.core.storage.noop_compute_log_manager", "NoOpComputeLogManager"
        ),
        "run_monitoring": {
            "enabled": monitoring["enabled"],
            "start_timeout_seconds": monitoring["startTimeoutSeconds"],
            "max_runtime_seconds": monitoring["maxRuntimeSeconds"],
            "poll_interval_seconds": monitoring["pollIntervalSeconds"],
        },
        "sensors": {"use_threads": True, "num_workers": 4},
        "schedules": {"use_threads": True, "num_workers": 4},
        "telemetry": {"enabled": values["telemetry"]["enabled"]},
        "retention": {
            kind: {"purge_after_days": retention[kind]["purgeAfterDays"]}
            for kind in ("schedule", "sensor")
        },
        **values["additionalInstanceConfig"],
    }


def _class(module: str, name: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"module": module, "class": name, **({"config": config} if config else {})}


def _launcher(values: Values, namespace: str) -> dict[str, Any]:
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    return {
        "load_incluster_config": launcher["loadInclusterConfig"],
        "job_namespace": namespace,
        "image_pull_policy": launcher["imagePullPolicy"],
        "service_account_name": ACCOUNT,
        "dagster_home": values["global"]["dagsterHome"],
        "instance_config_map": INSTANCE,
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
        "security_context": launcher["securityContext"],
        "run_k8s_config": {"job_spec_config": launcher["runK8sConfig"]["jobSpecConfig"]},
    }


def _context_of_runs(deployment: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """What a code location adds to the Jobs of its runs: it has precedence over the launcher."""
    return {
        "k8s": {
            "image_pull_policy": deployment["image"]["pullPolicy"],
            "env_config_maps": [_variables(deployment)],
            "env_secrets": [each["name"] for each in deployment["envSecrets"]],
            "resources": deployment["resources"],
            "volume_mounts": deployment["volumeMounts"],
            "volumes": deployment["volumes"],
            "namespace": namespace,
            "service_account_name": ACCOUNT_OF_RUNS,
            "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
        }
    }


def _deployments(values: Values, namespace: str) -> list[Manifest]:
    port, home = values["dagsterWebserver"]["service"]["port"], values["global"]["dagsterHome"]
    commands = {
        "dagster-webserver": ("dagsterWebserver", f"dagster-webserver -h 0.0.0.0 -p {port}"),
        "daemon": ("dagsterDaemon", "dagster-daemon run"),
    }
    mounts = [
        {"name": INSTANCE, "mountPath": f"{home}/dagster.yaml", "subPath": "dagster.yaml"},
        {"name": WORKSPACE, "mountPath": "/dagster-workspace/"},
    ]
    processes = [
        _deployment(
            f"{FULL_NAME}-{name}",
            values,
            values[process],
            ACCOUNT,
            [f"{FULL_NAME}-{name.removeprefix('dagster-')}-env"],
            mounts,
            command=["/bin/bash", "-c", f"{command} -w /dagster-workspace/workspace.yaml"],
        )
        for name, (process, command) in commands.items()
    ]
    code_locations = values["dagster-user-deployments"]["deployments"]
    return processes + [_code_location(values, each, namespace) for each in code_locations]


def _code_location(values: Values, deployment: Mapping[str, Any], namespace: str) -> Manifest:
    listen = ["-h", "0.0.0.0", "-p", str(deployment["port"])]
    image = deployment["image"]
    return _deployment(
        f"{USER_CODE}-{deployment['name']}",
        values,
        deployment,
        ACCOUNT_OF_RUNS,
        [f"{USER_CODE}-user-deployments-shared-env", _variables(deployment)],
        variables={
            "DAGSTER_CURRENT_IMAGE": f"{image['repository']}:{image['tag']}",
            "DAGSTER_CONTAINER_CONTEXT": json.dumps(_context_of_runs(deployment, namespace)),
        },
        args=["dagster", "code-server", "start", *listen, *deployment["codeServerArgs"]],
    )


def _deployment(
    name: str,
    values: Values,
    process: Mapping[str, Any],
    account: str,
    config_maps: Sequence[str],
    mounts: Sequence[Mapping[str, str]] = (),
    variables: Mapping[str, str] | None = None,
    **command: list[str],
) -> Manifest:
    """A Deployment of one pod; `mounts` are of ConfigMaps, `command` is it or its arguments."""
    password = {"name": values["global"]["postgresqlSecretName"], "key": "postgresql-password"}
    image, labels = process["image"], {"deployment": name}
    container = {
        "name": "dagster" if mounts else "dagster-user-deployments",
        "image": f"{image['repository']}:{image['tag']}",
        "imagePullPolicy": image["pullPolicy"],
        "securityContext": process["securityContext"],
        "resources": process["resources"],
        **command,
        "env": [
            {"name": "DAGSTER_PG_PASSWORD", "valueFrom": {"secretKeyRef": password}},
            *({"name": key, "value": value} for key, value in (variables or {}).items()),
        ],
        "envFrom": [
            *({"configMapRef": {"name": each}} for each in config_maps),
            *({"secretRef": each} for each in process.get("envSecrets", [])),
        ],
        "volumeMounts": [*mounts, *process["volumeMounts"]],
    }
    config_maps_of_files = [
        {"name": each["name"], "configMap": {"name": each["name"]}} for each in mounts
    ]
    pod = {
        "serviceAccountName": account,
        "automountServiceAccountToken": True,
        "containers": [container],
        "volumes": config_maps_of_files + process["volumes"],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    if process is values["dagsterDaemon"]:
        spec["strategy"] = {"type": "Recreate"}
    return _object("apps/v1", "Deployment", name, spec=spec)


def _object(version: str, kind: str, name: str, **parts: Any) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **parts}
