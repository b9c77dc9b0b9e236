"""Services for the containers of the tests of this folder."""

from market_data_pipeline_tests.services.conftest import (  # noqa: F401
    kafka,
    kafka_services,
    postgres,
    real_mongo,
)
from market_data_pipeline_tests.storage.conftest import server, storage  # noqa: F401
