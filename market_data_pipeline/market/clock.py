"""The clocks; tests replace these functions."""

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The current instant, in UTC: it decides what is live."""
    return datetime.now(UTC)


def record_now() -> datetime:
    """The current instant, in UTC, by the clock that Dagster stamps its records with."""
    return datetime.now(UTC)


def sleep(seconds: float) -> None:
    """Waits by this clock."""
    time.sleep(seconds)
