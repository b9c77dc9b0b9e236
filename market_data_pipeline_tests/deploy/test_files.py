"""The files of `deploy/`, the Dockerfile and compose name only what there is."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from dotenv import dotenv_values

from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.settings import Settings
from market_data_pipeline_tests.deploy.compose import COMPOSE, PROCESSES
from market_data_pipeline_tests.deploy.pins import pins
from market_data_pipeline_tests.supervised import OURS, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
HELM_TEXT = (ROOT / "deploy" / "helm-values.yaml").read_text()
HELM: dict[str, Any] = yaml.safe_load(HELM_TEXT)
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTANCE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
# Variables of the images that compose runs beside ours, and of compose itself.
FOREIGN = re.compile(r"POSTGRES_|MONGO_INITDB_|KAFKA_|IMAGE_TAG|DAGSTER_PORT|MONGO_\w*PASSWORD")
WATCHLISTS = sorted((ROOT / "deploy" / "watchlists").glob("*.env"))


def known_variables() -> set[str]:
    """Every variable that the package, the example or the instance's files name."""
    files = [*(ROOT / "market_data_pipeline").rglob("*.py"), ROOT / ".env.example"]
    files += [ROOT / "deploy" / name for name in ("dagster.yaml", "workspace.yaml")]
    return set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", "\n".join(path.read_text() for path in files)))


def test_the_image_is_made_of_files_that_are_there_and_not_ignored() -> None:
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")
    ]
    copied = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    sources = [source for line in copied for source in line.split()[:-1]]
    assert len(sources) > 5
    for source in sources:
        assert (ROOT / source).exists()
        assert any(path.startswith(source) or source.startswith(path) for path in allowed)
    assert ".env" not in allowed


def test_every_package_of_the_image_is_pinned_with_its_hashes_and_so_is_what_builds_it() -> None:
    installed = re.findall(r"pip install (.+?)(?: \\|$)", DOCKERFILE, re.MULTILINE)
    *pinned, ours = installed
    assert [re.findall(r"--requirement requirements/(\w+)\.txt", each) for each in pinned] == [
        ["build"],
        ["image"],
    ]
    assert all("--require-hashes" in each for each in pinned)
    assert "--no-index" in ours
    assert "--no-build-isolation" in DOCKERFILE


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_of_compose_is_a_program_of_ours_with_a_health_check(name: str) -> None:
    service = COMPOSE["services"][name]
    programs = Path(sys.executable).parent
    assert (programs / service["command"][0]).exists()
    assert (programs / service["healthcheck"]["test"][1]).exists() or name == "webserver"
    assert set(service["environment"]) <= known_variables()
    if "--module-name" in service["command"]:
        importlib.import_module(service["command"][service["command"].index("--module-name") + 1])
    if "--workspace" in service["command"]:
        assert (ROOT / service["command"][service["command"].index("--workspace") + 1]).exists()


def test_compose_starts_again_limits_and_keeps_every_service_and_gives_it_no_rights() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["restart"] == "unless-stopped", name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        assert service["healthcheck"]["test"], name
        for source in (volume.split(":")[0] for volume in service["volumes"]):
            assert source in COMPOSE["volumes"] or (ROOT / source).is_file(), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "cap_add" not in service, name


def test_compose_gives_the_pipeline_the_rights_of_its_own_database_alone() -> None:
    mongo = COMPOSE["services"]["mongo"]["environment"]
    script = (ROOT / "deploy" / "mongo-user.js").read_text()

    (user,) = re.findall(r"user: '(\w+)'", script)
    pipeline = COMPOSE["services"]["code-location"]["environment"]
    assert f"mongodb://{user}:${{MONGO_PASSWORD" in pipeline["MONGO_URI"]
    assert user != mongo["MONGO_INITDB_ROOT_USERNAME"]
    assert pipeline["MONGO_ROOT_PASSWORD"] == ""  # `.env` has it
    assert re.findall(r"role: '(\w+)', db: process.env.(\w+)", script) == [
        ("readWrite", "MONGO_DB")
    ]
    assert set(re.findall(r"process\.env\.(\w+)", script)) <= mongo.keys()
    assert mongo["MONGO_DB"] == f"${{MONGO_DB:-{Settings().mongo_database}}}"


def test_compose_listens_on_the_loopback_alone_and_holds_no_secret() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    ports = [each for one in COMPOSE["services"].values() for each in one.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    secrets = re.findall(r"^\s*(\w*(?:PASSWORD|TOKEN)): (.+)$", text, re.MULTILINE)
    assert secrets
    for name, value in secrets:
        assert re.fullmatch(r"\$\{\w+:\?.+\}|\"\"  # .+", value), name
    asked = set(re.findall(r"\$\{(\w+)", text))
    assert {name for name in asked if not FOREIGN.match(name)} <= known_variables()


def test_the_instance_is_one_that_dagster_takes_and_it_retries_nothing() -> None:
    """What failed is launched again by the code location alone."""
    config, _ = dagster_instance_config(str(ROOT / "deploy"))
    assert "run_retries" not in config


def test_make_dev_and_production_agree() -> None:
    local = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    # Production waits for code locations that restart, its runs are processes of the code location
    # and end sooner, and each container has a log of its own.
    own = {"run_coordinator", "run_launcher", "run_monitoring", "python_logs"}

    assert {name: INSTANCE[name] for name in local.keys() - own} == {
        name: part for name, part in local.items() if name not in own
    }
    for instance in (local, INSTANCE):
        assert instance["run_monitoring"]["enabled"]
        assert "pools" not in instance.get("concurrency", {})


def test_helm_asks_for_what_the_instance_asks_for() -> None:
    daemon, (deployment,) = HELM["dagsterDaemon"], HELM["dagster-user-deployments"]["deployments"]
    monitoring = INSTANCE["run_monitoring"]
    assert daemon["runMonitoring"]["maxRuntimeSeconds"] == monitoring["max_runtime_seconds"]
    assert not daemon["runRetries"]["enabled"]
    assert PROJECT["version"] == deployment["image"]["tag"]
    assert deployment["env"].keys() <= known_variables()
    importlib.import_module(deployment["codeServerArgs"][1])
    (version,) = re.findall(r"--version (\S+)", HELM_TEXT)
    assert pins("image")["dagster"] == version
    queue = daemon["runCoordinator"]["config"]["customRunCoordinator"]
    limit = INSTANCE["concurrency"]["runs"]["max_concurrent_runs"]
    instance = INSTANCE["run_coordinator"]
    assert queue == {**instance, "config": {**instance["config"], "max_concurrent_runs": limit}}


def test_every_process_of_helm_writes_to_a_folder_of_its_own_alone() -> None:
    (deployment,) = HELM["dagster-user-deployments"]["deployments"]
    for process in (HELM["dagsterWebserver"], HELM["dagsterDaemon"], deployment):
        assert process["securityContext"]["readOnlyRootFilesystem"]
        (volume,), (mount,) = process["volumes"], process["volumeMounts"]
        assert (volume["name"], volume["emptyDir"]) == (mount["name"], {})
        assert mount["mountPath"] == "/tmp"
    launcher = HELM["runLauncher"]["config"]["k8sRunLauncher"]
    assert launcher["securityContext"]["readOnlyRootFilesystem"]


def test_the_webserver_of_helm_listens_where_every_user_may() -> None:
    webserver = HELM["dagsterWebserver"]
    port = webserver["service"]["port"]
    assert webserver["securityContext"]["runAsNonRoot"]
    assert port >= 1024
    assert webserver["readinessProbe"]["httpGet"]["port"] == port


def test_two_code_locations_share_the_instruments_and_the_quota_and_no_key() -> None:
    script = (
        "import json;"
        "from market_data_pipeline.definitions import SETTINGS, defs;"
        "from market_data_pipeline.market.watchlist import load_watchlist;"
        "graph = defs.resolve_asset_graph();"
        "checks = [check.asset_key for check in graph.asset_check_keys];"
        "keys = [key.path for key in [*graph.get_all_asset_keys(), *checks]];"
        "share = SETTINGS.brapi_quota_share;"
        "print(json.dumps({'id': SETTINGS.transactional_id, 'share': share, 'keys': keys,"
        " 'instruments': load_watchlist(SETTINGS.watchlist_file).tickers}))"
    )
    shards = []
    for file in WATCHLISTS:
        env = {name: value for name, value in os.environ.items() if not OURS.match(name)}
        env |= {name: value for name, value in dotenv_values(file).items() if value}
        ran = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, check=True
        )
        shards.append(json.loads(ran.stdout))

    assert {path[0] for path in shards[0]["keys"]} == {"blue_chips"}
    assert {path[0] for path in shards[1]["keys"]} == {"funds"}
    assert [shard["id"] for shard in shards] == [
        "market-data-pipeline-blue_chips",
        "market-data-pipeline-funds",
    ]
    instruments = [ticker for shard in shards for ticker in shard["instruments"]]
    assert sorted(instruments) == sorted(load_watchlist().tickers)
    for shard in shards:
        assert shard["share"] == len(shard["instruments"]) / len(instruments)


def test_compose_and_helm_run_the_same_two_code_locations() -> None:
    folder = ROOT / "deploy" / "watchlists"
    compose = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"]
    helm = yaml.safe_load((folder / "helm-values.yaml").read_text())
    workspace = yaml.safe_load((folder / "workspace.yaml").read_text())["load_from"]
    servers = [each["grpc_server"] for each in workspace]
    deployments = helm["dagster-user-deployments"]["deployments"]
    (one,) = HELM["dagster-user-deployments"]["deployments"]

    for server, deployment, file in zip(servers, deployments, WATCHLISTS, strict=True):
        settings = dotenv_values(file)
        assert settings["ASSET_KEY_PREFIX"] == server["location_name"]
        (env_file,) = compose[server["host"]]["env_file"]
        assert ROOT / env_file == file
        own = {"name": deployment["name"], "env": one["env"] | settings}
        assert deployment == one | own
        assert settings.keys() <= known_variables()
