"""The files of `deploy/`, the Dockerfile and compose name only what there is."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import yaml
from dotenv import dotenv_values

from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.settings import Settings
from market_data_pipeline_tests.conftest import LoadDefinitions
from market_data_pipeline_tests.deploy.compose import COMPOSE
from market_data_pipeline_tests.deploy.pins import pins
from market_data_pipeline_tests.supervised import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
HELM_TEXT = (ROOT / "deploy" / "helm-values.yaml").read_text()
HELM: dict[str, Any] = yaml.safe_load(HELM_TEXT)
(CODE_LOCATION,) = HELM["dagster-user-deployments"]["deployments"]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTANCE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
WATCHLISTS = sorted((ROOT / "deploy" / "watchlists").glob("*.env"))


def test_every_package_of_the_image_is_pinned_with_its_hashes_and_so_is_what_builds_it() -> None:
    *pinned, ours = re.findall(r"pip install (.+?)(?: \\|$)", DOCKERFILE, re.MULTILINE)
    files = [re.findall(r"--requirement requirements/(\w+)\.txt", each) for each in pinned]
    assert files == [["build"], ["image"]]
    assert all("--require-hashes" in each for each in pinned)
    assert "--no-index" in ours
    assert "--no-build-isolation" in DOCKERFILE


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
        # What failed is launched again by the code location alone.
        assert "run_retries" not in instance


def test_helm_asks_for_what_the_instance_asks_for() -> None:
    daemon = HELM["dagsterDaemon"]
    monitoring = INSTANCE["run_monitoring"]
    assert daemon["runMonitoring"]["maxRuntimeSeconds"] == monitoring["max_runtime_seconds"]
    assert not daemon["runRetries"]["enabled"]
    queue = daemon["runCoordinator"]["config"]["customRunCoordinator"]
    limit = INSTANCE["concurrency"]["runs"]["max_concurrent_runs"]
    instance = INSTANCE["run_coordinator"]
    assert queue == {**instance, "config": {**instance["config"], "max_concurrent_runs": limit}}


def test_helm_names_the_versions_the_module_and_the_settings_that_there_are() -> None:
    assert CODE_LOCATION["image"]["tag"] == PROJECT["version"]
    assert re.findall(r"--version (\S+)", HELM_TEXT) == [pins("image")["dagster"]]
    assert CODE_LOCATION["codeServerArgs"][1] == "market_data_pipeline.definitions"
    assert {name.lower() for name in CODE_LOCATION["env"]} <= Settings.model_fields.keys()


def test_every_process_of_helm_needs_no_rights_and_writes_to_a_folder_of_its_own_alone() -> None:
    webserver = HELM["dagsterWebserver"]
    for process in (webserver, HELM["dagsterDaemon"], CODE_LOCATION):
        assert process["securityContext"]["readOnlyRootFilesystem"]
        (volume,), (mount,) = process["volumes"], process["volumeMounts"]
        assert (volume["name"], volume["emptyDir"]) == (mount["name"], {})
        assert mount["mountPath"] == "/tmp"
    launcher = HELM["runLauncher"]["config"]["k8sRunLauncher"]
    assert launcher["securityContext"] == webserver["securityContext"]
    assert webserver["securityContext"]["runAsNonRoot"]
    port = webserver["service"]["port"]
    assert port == webserver["readinessProbe"]["httpGet"]["port"] >= 1024


def test_compose_and_helm_run_the_same_two_code_locations_which_share_instruments_and_quota(
    load_definitions: LoadDefinitions,
) -> None:
    folder = ROOT / "deploy" / "watchlists"
    compose = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"]
    helm = yaml.safe_load((folder / "helm-values.yaml").read_text())
    workspace = yaml.safe_load((folder / "workspace.yaml").read_text())["load_from"]
    servers = [each["grpc_server"] for each in workspace]
    deployments = helm["dagster-user-deployments"]["deployments"]
    everything = load_watchlist().tickers
    instruments: list[str] = []

    for server, deployment, file in zip(servers, deployments, WATCHLISTS, strict=True):
        variables = {name: value or "" for name, value in dotenv_values(file).items()}
        prefix = variables["ASSET_KEY_PREFIX"]
        assert prefix == server["location_name"]
        (env_file,) = compose[server["host"]]["env_file"]
        assert ROOT / env_file == file
        own = {"name": deployment["name"], "env": CODE_LOCATION["env"] | variables}
        assert deployment == CODE_LOCATION | own

        loaded = load_definitions(**variables)
        graph, settings = loaded.defs.resolve_asset_graph(), loaded.SETTINGS
        checks = [check.asset_key for check in graph.asset_check_keys]
        assert {key.path[0] for key in [*graph.get_all_asset_keys(), *checks]} == {prefix}
        assert settings.transactional_id == f"market-data-pipeline-{prefix}"
        tickers = load_watchlist(settings.watchlist_file).tickers
        assert settings.brapi_quota_share == len(tickers) / len(everything)
        instruments += tickers
    assert sorted(instruments) == sorted(everything)
