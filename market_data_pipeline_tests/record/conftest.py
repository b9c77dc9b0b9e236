"""The pipeline in the middle of a session."""

import pytest

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline, SetClock
from market_data_pipeline_tests.record.helpers import HALF_AN_HOUR, Later


@pytest.fixture
def later(set_clock: SetClock) -> Later:
    """Sets the clock to so many windows after 15:00."""
    return lambda windows: set_clock(TUESDAY_15_00 + windows * HALF_AN_HOUR)


@pytest.fixture
def stored(pipeline: Pipeline, later: Later) -> Pipeline:
    """The pipeline in the second window, the first one stored and published."""
    assert pipeline.run(LIVE_ON_TUESDAY).success
    later(1)
    return pipeline
