"""The one clock that decides what is live; tests replace its functions."""

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The current instant, in UTC."""
    return datetime.now(UTC)


def sleep(seconds: float) -> None:
    """Waits by this clock."""
    time.sleep(seconds)
