"""A real broker for the examples."""

# Fixtures of this folder as well.
from market_data_pipeline_tests.publication.conftest import (  # noqa: F401
    kafka,
    kafka_services,
    topic,
)
