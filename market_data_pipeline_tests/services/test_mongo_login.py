"""MongoDB's login (SCRAM), against FerretDB: a server of another make that has users.

It fails at the write of `mongo_price_history`, so no window is stored in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from market_data_pipeline_dev.process import Child
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline
from market_data_pipeline_tests.observed import failure_of
from market_data_pipeline_tests.services.go_program import go_program
from market_data_pipeline_tests.supervised import ROOT, free_ports

pytestmark = pytest.mark.services

MODULE, VERSION = "github.com/FerretDB/FerretDB", "v1.24.2"
USER, PASSWORD = "ann", "p@ss"


@pytest.fixture(scope="module")
def login_uri(kafka_services: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with users, with the name and the password of one."""
    folder = tmp_path_factory.mktemp("ferretdb")
    (port,) = free_ports(1)
    program = go_program(MODULE, VERSION, {"build/version/version.txt": VERSION})
    data = [f"--sqlite-url=file:{folder}/", f"--state-dir={folder}"]
    login = [f"--setup-username={USER}", f"--setup-password={PASSWORD}", "--setup-database=admin"]
    address = [f"--listen-addr=127.0.0.1:{port}", "--debug-addr=-", "--telemetry=disable"]
    command = [str(program), "--handler=sqlite", "--test-enable-new-auth", *data, *login, *address]
    server = Child("FerretDB", command, None, folder / "server.log")
    uri = f"mongodb://{USER}:p%40ss@127.0.0.1:{port}/"
    try:
        with pymongo.MongoClient[dict[str, Any]](uri) as client:
            client.admin.command("ping")
        yield uri
    finally:
        server.stop()


def test_a_wrong_password_is_one_sentence_and_does_not_stop_the_topic(
    pipeline: Pipeline, login_uri: str
) -> None:
    pipeline.mongo_uri = login_uri.replace("p%40ss", "another-one")

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert "Check the user name" in failure_of(result, "mongo_price_history")
    assert "another-one" not in repr(result.all_events)
    assert len(pipeline.events()) == 50


def test_the_tests_of_the_library_pass_against_it(login_uri: str) -> None:
    tests = Path("libraries", "dagster-mongo", "dagster_mongo_tests", "test_login.py")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        cwd=ROOT,
        env={**os.environ, "TEST_MONGO_LOGIN_URI": login_uri},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout
    assert "skipped" not in ended.stdout
