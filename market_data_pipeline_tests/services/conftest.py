"""The services that tests of the whole deployment need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

# Fixtures of this folder as well.
from market_data_pipeline_tests.publication.conftest import kafka, kafka_services  # noqa: F401
from market_data_pipeline_tests.services.kafka_broker import ServiceUnavailableError
from market_data_pipeline_tests.services.mongo_engine import mongo_engine
from market_data_pipeline_tests.services.postgres import Postgres, installed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first."""
    items.sort(key=lambda item: item.path.name != "test_production.py")


@pytest.fixture
def postgres(kafka_services: None) -> Iterator[Postgres]:  # noqa: F811
    """A PostgreSQL that the test may crash."""
    if not installed():
        pytest.fail("PostgreSQL is not installed: Debian's package is `postgresql`")
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def real_mongo(kafka_services: None) -> Iterator[str]:  # noqa: F811
    """The address of a real MongoDB."""
    try:
        with mongo_engine() as uri:
            yield uri
    except ServiceUnavailableError as error:
        pytest.fail(f"MongoDB cannot be run: {error}")
