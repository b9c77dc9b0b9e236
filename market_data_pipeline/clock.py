"""The one clock that decides what is live; a test sets it by replacing `utc_now`."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The current instant, in UTC."""
    return datetime.now(UTC)
