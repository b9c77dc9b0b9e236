"""`make dev` with the pipeline itself: sandbox, then another Brapi, then the sandbox again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pymongo
import pytest
from brapi_sandbox import serve
from brapi_sandbox.market import Market

from market_data_pipeline.watchlist import load_watchlist
from market_data_pipeline_tests.dev.test_end_to_end import wait_out_a_boundary
from market_data_pipeline_tests.supervised import ROOT, Supervisor, settings

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
FINISHED, THERE = "The run at startup is finished", "No run at startup: The quotes of"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of the tracked files as they are now, below `tmp_path`."""
    checkout = tmp_path / "checkout"
    tracked = git(ROOT, "ls-files", "-z").split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_bytes((ROOT / name).read_bytes())
    git(checkout, "init", "--quiet")
    git(checkout, "add", "--all")
    author = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    git(checkout, *author, "commit", "--quiet", "--message", "all")
    return checkout


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def env(checkout: Path, tmp_path: Path) -> dict[str, str]:
    """A shell with the checkout's own state folder; a watchlist of a ticker nobody else has."""
    watchlist = tmp_path / "watchlist.csv"
    watchlist.write_text("ticker\nGGBR4\nWXYZ3\n")
    mine = {"PYTHONPATH": str(checkout), "WATCHLIST_FILE": str(watchlist)}
    return settings(checkout / ".dev") | mine


def start(checkout: Path, env: dict[str, str], expected: str) -> list[dict[str, Any]]:
    """Starts `make dev` until it says so, and stops it; the documents in its MongoDB by then."""
    supervisor = Supervisor(checkout.parent, env, cwd=checkout)
    try:
        supervisor.wait_for(expected)
        uri = f"mongodb://127.0.0.1:{env['EMBEDDED_MONGO_PORT']}"
        with pymongo.MongoClient[dict[str, Any]](uri) as client:
            return list(client["market_data_db"]["price_history"].find())
    finally:
        assert supervisor.end(signal.SIGTERM) == 0


def test_going_back_and_forth_loses_nothing_and_mixes_nothing(
    checkout: Path, env: dict[str, str]
) -> None:
    wait_out_a_boundary()
    made_up = start(checkout, env, FINISHED)
    assert {document["ticker"] for document in made_up} == {"GGBR4", "WXYZ3"}

    with serve(token="right", market=Market(["WXYZ3"])) as brapi:
        real = {"BRAPI_TOKEN": "right", "BRAPI_BASE_URL": brapi.url}
        # It is not Brapi's own, so that it has to be allowed to reach the sinks.
        of_brapi = start(checkout, env | real | {"PUBLISH_MADE_UP_PRICES": "true"}, FINISHED)
        assert len(of_brapi) == 2
        assert brapi.requests

    again = start(checkout, env, THERE)
    assert json.dumps(again, default=str) == json.dumps(made_up, default=str)


def test_make_dev_leaves_nothing_untracked(checkout: Path, env: dict[str, str]) -> None:
    start(checkout, env, "The run at startup")
    assert git(checkout, "status", "--porcelain") == ""


def test_the_sandbox_knows_the_watchlist() -> None:
    assert {each.ticker for each in load_watchlist()} <= Market().instruments.keys()


def test_the_cli_leaves_nothing_behind(checkout: Path, env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "dagster", "definitions", "validate"]
    subprocess.run([*command, "-w", "workspace.yaml"], cwd=checkout, env=env, check=True)
    assert git(checkout, "status", "--porcelain") == ""
