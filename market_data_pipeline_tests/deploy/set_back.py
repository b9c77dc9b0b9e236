"""A clock that is set back into the middle of a session, for windows of few minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

MINUTE = timedelta(minutes=1)


class SetBack:
    """The clock, and the settings with which a code location has it (`minutes.py`).

    The daemon keeps the real one and ticks at full minutes. A run is launched a minute before its
    window ends; where a window is no longer than that, 20 seconds before, and the windows end 20
    seconds after a full minute.

    Args:
        beginning: what time it is now.
        window: how long a window is.
    """

    def __init__(self, beginning: datetime, window: timedelta = MINUTE) -> None:
        ahead = timedelta(seconds=20) if window == MINUTE else MINUTE
        whole = (datetime.now(UTC) - beginning) // window * window
        self.behind = whole + ahead % MINUTE
        self.settings = {
            "SYNC_INTERVAL_MINUTES": str(window // MINUTE),
            "PARTITIONS_START": f"{beginning:%Y-%m-%d}",
            "TEST_SECONDS_BACK": str(int(self.behind.total_seconds())),
            "TEST_SECONDS_AHEAD": str(int(ahead.total_seconds())),
        }

    def now(self) -> datetime:
        """The current instant by this clock (UTC)."""
        return datetime.now(UTC) - self.behind
