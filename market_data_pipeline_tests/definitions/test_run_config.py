"""Whoever may launch a run can neither send a secret elsewhere nor read one.

Through a real webserver and a real code location, as a web page in somebody's browser could do it.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from market_data_pipeline_dev.process import Child
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline
from market_data_pipeline_tests.deploy.webserver import LAUNCH, messages, runs, why_it_failed
from market_data_pipeline_tests.observed import logs
from market_data_pipeline_tests.supervised import ROOT, settings

SECRETS = {
    "BRAPI_TOKEN": "s3cr3t-token",
    "MONGO_URI": "mongodb://user:s3cr3t-word@127.0.0.1:9/",
    "KAFKA_CONFIG_SASL_PASSWORD": "s3cr3t-password",
    "ALERT_WEBHOOK_URL": "https://127.0.0.1:9/s3cr3t-path",
}
TO_RESOURCES: list[dict[str, Any]] = [
    {"brapi": {"config": {"BRAPI_BASE_URL": "http://127.0.0.1:9"}}},
    {"brapi": {"config": {"watchlist_file": {"env": "MONGO_URI"}}}},
    {"mongo": {"config": {"uri": {"env": "BRAPI_TOKEN"}}}},
    {"kafka": {"config": {"bootstrap_servers": "127.0.0.1:9"}}},
    {"quote_store": {"config": {"path": {"env": "KAFKA_CONFIG_SASL_PASSWORD"}}}},
    {"io_manager": {"config": {"base_dir": {"env": "BRAPI_TOKEN"}}}},
]
TO_QUOTES = {"quotes": {"config": {"accept": ["PETR4", {"env": "BRAPI_TOKEN"}]}}}
PAGES = """
query ($repository: RepositorySelector!) {
  allTopLevelResourceDetailsOrError(repositorySelector: $repository) {
    ... on ResourceDetailsList { results {
      name configFields { name description defaultValueAsJson } configuredValues { key value }
    } }
  }
}
"""
MODULE = "market_data_pipeline.definitions"
REPOSITORY = {"repositoryLocationName": MODULE, "repositoryName": "__repository__"}


class Dagster:
    """A webserver with secrets, which is asked by GET, from a web page of another origin."""

    def __init__(self, folder: Path) -> None:
        env = settings(folder) | SECRETS | {"DAGSTER_HOME": str(folder)}
        self.url = f"http://127.0.0.1:{env['DAGSTER_PORT']}"
        shutil.copy(ROOT / "dagster.yaml", folder)
        command = [sys.executable, "-m", "dagster_webserver", "-m", MODULE]
        command += ["-p", env["DAGSTER_PORT"]]
        self.child = Child("dagster", command, env, folder / "log", patience=20, folder=folder)
        self.child.said(r"(Serving dagster-webserver)")
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy
        until_it_listens = HTTPAdapter(max_retries=Retry(connect=8, backoff_factor=0.1))
        self._session.mount(self.url, until_it_listens)

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of the one field that is asked for."""
        asked = {"query": query, "variables": json.dumps(variables)}
        page = {"Origin": "https://elsewhere.example", "Host": "elsewhere.example"}
        answer = self._session.get(f"{self.url}/graphql", params=asked, headers=page, timeout=60)
        (found,) = answer.json()["data"].values()
        return found

    def launch(self, config: Any) -> Any:
        """What the webserver says to a launch."""
        params = {
            "selector": {**REPOSITORY, "pipelineName": "market_data_job"},
            "runConfigData": config,
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": LIVE_ON_TUESDAY}]},
        }
        return self.ask(LAUNCH, params=params)


with_a_webserver = pytest.mark.services  # for its time: it needs no service


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    folder = tmp_path_factory.mktemp("dagster")
    dagster = Dagster(folder)
    yield dagster
    dagster.child.stop()
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert [path for path in written if b"s3cr3t" in path.read_bytes()] == []


@with_a_webserver
@pytest.mark.parametrize("config", TO_RESOURCES, ids=str)
def test_a_launch_cannot_change_a_resource(config: dict[str, Any], dagster: Dagster) -> None:
    answer = dagster.launch({"resources": config})

    assert answer["__typename"] == "RunConfigValidationInvalid"
    assert "Received unexpected config entr" in answer["errors"][0]["message"]
    assert "s3cr3t" not in str(answer)


@with_a_webserver
def test_a_launch_cannot_have_a_secret_printed(dagster: Dagster) -> None:
    run = dagster.launch({"ops": TO_QUOTES})["run"]["runId"]

    while runs(dagster.url, 1)[0].status not in ("SUCCESS", "FAILURE"):
        time.sleep(0.3)
    said = f"{why_it_failed(dagster.url, run)} {messages(dagster.url, run)}"
    assert "no stored quotes" in said
    assert "s3cr3t" not in said


@with_a_webserver
def test_the_pages_of_the_resources_show_the_settings_and_no_secret(dagster: Dagster) -> None:
    pages = dagster.ask(PAGES, repository=REPOSITORY)["results"]
    fields = {
        (page["name"], field["name"]): field for page in pages for field in page["configFields"]
    }
    shown = {place: json.loads(field["defaultValueAsJson"]) for place, field in fields.items()}

    assert shown["brapi", "BRAPI_BASE_URL"] == "https://brapi.dev"
    assert shown["brapi", "BRAPI_TICKERS_PER_REQUEST"] == "by plan"
    assert shown["brapi", "BRAPI_TOKEN"] == shown["mongo", "MONGO_URI"] == "set"
    assert shown["kafka", "KAFKA_CLIENT_PROPERTIES"] == "KAFKA_CONFIG_SASL_PASSWORD"
    assert [place for place, field in fields.items() if not field["description"]] == []
    assert "s3cr3t" not in str(pages)


def test_a_run_cannot_have_a_secret_printed_where_there_are_quotes(
    pipeline: Pipeline, four_instruments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    pipeline.kafka = {"client_properties": {}}  # the broker has no login
    assert pipeline.run(LIVE_ON_TUESDAY).success

    result = pipeline.run(LIVE_ON_TUESDAY, config={"quotes": {"accept": [{"env": "MONGO_URI"}]}})

    assert not result.success
    said = logs(pipeline, result)
    assert "and nothing else" in said
    assert "s3cr3t" not in said
