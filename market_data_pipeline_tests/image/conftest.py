"""Services for the containers of the tests of this folder."""

from market_data_pipeline_tests.publication.conftest import kafka as kafka
from market_data_pipeline_tests.publication.conftest import kafka_services as kafka_services
from market_data_pipeline_tests.services.conftest import postgres as postgres
from market_data_pipeline_tests.services.conftest import real_mongo as real_mongo
from market_data_pipeline_tests.storage.conftest import server, storage  # noqa: F401
