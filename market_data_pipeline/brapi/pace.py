"""Holds requests to Brapi's rate: never two starts closer together than the interval."""

from __future__ import annotations

import threading
import time


class Stopped(Exception):
    """The wait was called off: no further request is wanted."""


class Pace:
    """Hands out the instants at which requests may start, one at a time, to many threads.

    Args:
        interval: seconds between two starts, at the least.
        first_start: when the first may start, by `time.monotonic()`.
    """

    def __init__(self, interval: float, first_start: float = 0.0) -> None:
        self._interval = interval
        self._next_start = first_start
        self._queue = threading.Lock()
        self._state = threading.Lock()
        self._stopped = threading.Event()

    def wait_for_turn(self) -> None:
        """Returns when a request may start.

        Raises:
            Stopped: `stop` was called.
        """
        with self._queue:
            while not self._stopped.wait(max(0.0, self._next_start - time.monotonic())):
                with self._state:
                    now = time.monotonic()
                    if now >= self._next_start:
                        self._next_start = now + self._interval
                        return
            raise Stopped

    def hold(self, seconds: float) -> None:
        """Lets no request start for that many seconds: Brapi asked for a pause."""
        with self._state:
            self._next_start = max(self._next_start, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Waits without taking a turn.

        Raises:
            Stopped: `stop` was called.
        """
        if self._stopped.wait(seconds):
            raise Stopped

    def anew(self) -> Pace:
        """A pace that goes on where this one stopped."""
        return Pace(self._interval, self._next_start)

    def stop(self) -> None:
        """Calls off every wait, now and later."""
        self._stopped.set()
