"""The image, built as the Dockerfile says and run as compose does, but for the Docker daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from market_data_pipeline_dev.process import Child
from market_data_pipeline_tests.deploy.compose import COMPOSE
from market_data_pipeline_tests.deploy.pins import pins
from market_data_pipeline_tests.image.base import python_on_debian
from market_data_pipeline_tests.image.dockerfile import Image, build
from market_data_pipeline_tests.services.deployment import (
    Deployment,
    brapi,
    by_window,
    instruments_lacking,
    misdated,
)
from market_data_pipeline_tests.services.postgres import Postgres
from market_data_pipeline_tests.storage.object_storage import ObjectStorage
from market_data_pipeline_tests.supervised import ROOT, free_ports, wait_until

pytestmark = pytest.mark.services

STATE = "/var/lib/market-data"
TESTS = "market_data_pipeline_tests"


@pytest.fixture(scope="module")
def image(kafka_services: None, tmp_path_factory: pytest.TempPathFactory) -> Image:
    if os.geteuid() != 0:
        pytest.fail("the image can be built by root only, as it takes chroot and mounts")
    built = build(ROOT / "Dockerfile", python_on_debian, tmp_path_factory.mktemp("image"))
    place_of_the_tests(built).mkdir()
    return built


def place_of_the_tests(image: Image) -> Path:
    """Where the code location whose clock is set back is mounted; the image has no test in it."""
    (packages,) = image.root.glob("opt/venv/lib/python3.*/site-packages")
    return packages / TESTS


@pytest.fixture
def state(image: Image, tmp_path: Path) -> Path:
    """A new volume, with the owner that the image gives the folder."""
    assert image.volumes == [STATE]
    folder = tmp_path / "volume"
    folder.mkdir()
    owner = (image.root / STATE.lstrip("/")).stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    return folder


class Containers(Deployment):
    """The processes of compose, each in the image, where the volume alone can be written to."""

    def __init__(self, image: Image, state: Path, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._image, self._state, self._tests = image, state, self.home.parent / "tests"
        shutil.copytree(ROOT / TESTS, self._tests, ignore=shutil.ignore_patterns("__pycache__"))

    def _at_home(self, command: Sequence[str]) -> list[str]:
        (volume,) = {one for each in self.names for one in COMPOSE["services"][each]["volumes"]}
        places = {volume.split(":")[1]: self._state}
        scratch = COMPOSE["services"]["code-location"]["tmpfs"]
        tests = f"/{place_of_the_tests(self._image).relative_to(self._image.root)}"
        return self._image.contained(command, places, scratch, {tests: self._tests})

    def _environment(self, name: str) -> dict[str, str]:
        service = COMPOSE["services"][name]
        names = self._settings if "env_file" in service else service["environment"]
        ours = {key: self._settings[key] for key in names}
        return {**self._image.environment, **ours}


def outcome(image: Image, script: str, volume: Path) -> str:
    """What a script of the shell says in a container."""
    command = image.contained(["sh", "-c", script], {STATE: volume}, ["/tmp"])
    ended = subprocess.run(command, env=image.environment, capture_output=True, text=True)
    return ended.stdout + ended.stderr


def test_it_runs_without_rights_and_writes_to_its_volume_alone(image: Image, state: Path) -> None:
    assert outcome(image, "id -u; id -g; id -G", state).split() == ["10001"] * 3
    assert "CapEff:\t0000000000000000" in outcome(image, "grep CapEff /proc/self/status", state)
    assert "NoNewPrivs:\t1" in outcome(image, "grep NoNewPrivs /proc/self/status", state)
    for place in ("/opt/dagster/x", "/opt/venv/x", "/x"):
        assert "Read-only file system" in outcome(image, f"echo >{place}", state)
    assert outcome(image, f"echo >{STATE}/x; echo >/tmp/x; ls {STATE} /tmp", state).count("x") == 2


def test_it_holds_the_pinned_packages_and_nothing_of_the_tests(image: Image, state: Path) -> None:
    script = (
        "from importlib.metadata import distributions;"
        "print(*(f'{one.name.lower()}=={one.version}' for one in distributions()))"
    )
    installed = dict(
        one.split("==") for one in outcome(image, f'python -c "{script}"', state).split()
    )
    own = {"market-data-pipeline", "dagster-mongo", "pip"}
    assert {"dagster", "s3fs", "dagster-k8s", "dagster-postgres", *own} <= installed.keys()
    found = {name.replace("_", "-"): installed[name] for name in installed.keys() - own}
    assert found == pins("image")
    files = [*image.root.joinpath("opt", "dagster").rglob("*")]
    assert {path.name for path in files if path.is_file()} >= {"dagster.yaml", "workspace.yaml"}


def test_its_command_serves_what_its_health_check_asks(
    image: Image, state: Path, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    here = {"0.0.0.0": "127.0.0.1", "4000": str(port)}
    command, check = (
        [here.get(word, word) for word in words] for words in (image.command, image.health_check)
    )
    log = tmp_path / "server.log"
    process = Child(
        "code server", image.contained(command, {STATE: state}, ["/tmp"]), image.environment, log
    )
    try:

        def is_healthy() -> bool:
            process.check()
            command = image.contained(check, {STATE: state}, ["/tmp"])
            asked = subprocess.run(command, env=image.environment, capture_output=True)
            return asked.returncode == 0

        wait_until(is_healthy, "its health check succeeds")
    finally:
        process.stop()


def test_its_processes_store_and_publish_whole_windows(
    image: Image,
    state: Path,
    tmp_path: Path,
    postgres: Postgres,
    kafka: str,
    real_mongo: str,
    storage: ObjectStorage,
) -> None:
    storage.make_bucket("market-data")
    settings = {
        **storage.variables,
        "QUOTES_PATH": "s3://market-data/quotes",
        "MARKET_DATA_STATE": STATE,
    }
    with (
        brapi() as sandbox,
        Containers(
            image, state, tmp_path, sandbox, postgres, real_mongo, kafka, settings=settings
        ) as deployment,
    ):
        deployment.start()
        deployment.wait_for_a_tick()

        assert [name for name in deployment.names if not deployment.is_healthy(name)] == []
        documents, bars = deployment.documents(), deployment.bars()
        published = by_window(deployment.events())
    first = min(one["window_start"] for one in documents)
    assert not instruments_lacking(documents, first, bars)
    assert misdated(documents, bars) == []
    assert published
    assert all(len({*counts.values()}) == 1 for counts in published.values())
    assert len(storage.objects("market-data")) >= 2
    # The files of the quotes are on object storage; the volume has the logs.
    assert not [*state.rglob("*.parquet")]
