"""One client for each set of connection settings in a process, shared and counted."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock
from typing import Any

from pymongo import MongoClient

__all__ = ["acquire", "release"]

Client = MongoClient[dict[str, Any]]


@dataclass
class _Shared:
    client: Client
    users: int


_open: dict[str, _Shared] = {}
# The garbage collector may release a client within any other call.
_lock = RLock()


def acquire(key: str, connect: Callable[[], Client]) -> Client:
    """The open client of these settings, or a new one.

    Args:
        key: The connection settings as text.
        connect: Makes a connected client. What it raises is passed on.
    """
    with _lock:
        shared = _open.get(key)
        if shared is None:
            shared = _open[key] = _Shared(connect(), 0)
        shared.users += 1
        return shared.client


def release(key: str) -> None:
    """Give up one use of a client. The last user closes it."""
    with _lock:
        shared = _open.get(key)
        if shared is None:
            return
        shared.users -= 1
        if shared.users > 0:
            return
        del _open[key]
    shared.client.close()
