"""What a run gets ready while it waits for the end of its window."""

from typing import Protocol


class Service(Protocol):
    """A database or a broker that a sink writes to."""

    def trouble(self) -> str:
        """Connects; returns a sentence that says what is wrong and what to do, or an empty text."""
