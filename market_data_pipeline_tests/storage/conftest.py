"""Object storage for the tests of this folder."""

import os
from collections.abc import Iterator

import pytest

from market_data_pipeline_tests.services.kafka_broker import ServiceUnavailableError
from market_data_pipeline_tests.storage.object_storage import ObjectStorage, object_storage


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    if os.environ.get("REQUIRE_SERVICES") != "1":
        pytest.skip("needs object storage: run `make test-services`")
    try:
        with object_storage(tmp_path_factory.mktemp("storage")) as storage:
            yield storage
    except ServiceUnavailableError as error:
        pytest.fail(f"The S3 server cannot be built: {error}")


@pytest.fixture
def storage(server: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    """The server; this process has the access to it in its environment."""
    import s3fs

    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield server
    s3fs.S3FileSystem.clear_instance_cache()
