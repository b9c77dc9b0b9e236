"""Object storage for the containers of the tests of this folder."""

from market_data_pipeline_tests.storage.conftest import server, storage  # noqa: F401
