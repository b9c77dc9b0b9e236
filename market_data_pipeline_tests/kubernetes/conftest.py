"""A cluster with the pipeline in it, for the tests of this folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from market_data_pipeline_tests.kubernetes.control_plane import ControlPlane
from market_data_pipeline_tests.kubernetes.release import Release
from market_data_pipeline_tests.services.deployment import brapi
from market_data_pipeline_tests.services.postgres import Postgres


@pytest.fixture(scope="session")
def control_plane(kafka_services: None) -> Iterator[ControlPlane]:
    folder = Path(tempfile.mkdtemp(prefix="control-plane-"))
    with ControlPlane(folder) as running:
        yield running
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def release(control_plane: ControlPlane, kafka: str, mongo_server: str) -> Iterator[Release]:
    # Not under pytest's own folder, which only this user may enter.
    folder = Path(tempfile.mkdtemp(prefix="pods-"))
    folder.chmod(0o777)
    with (
        Postgres() as postgres,
        brapi() as sandbox,
        Release(control_plane, folder, sandbox, postgres, mongo_server, kafka) as running,
    ):
        yield running
    shutil.rmtree(folder)
