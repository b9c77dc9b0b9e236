"""One client for each set of connection settings in a process, shared and counted."""

import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Any

from pymongo import MongoClient

__all__ = ["acquire", "release", "settings_key"]

Client = MongoClient[dict[str, Any]]


@dataclass
class _Shared:
    client: Client
    users: int


_open: dict[Hashable, _Shared] = {}
# The garbage collector may release a client within any other call.
_lock = RLock()


def acquire(key: Hashable, connect: Callable[[], Client]) -> Client:
    """The open client of these settings, or a new one.

    Args:
        key: What `settings_key` made of the connection settings.
        connect: Makes a connected client. What it raises is passed on.
    """
    with _lock:
        shared = _open.get(key)
        if shared is None:
            shared = _open[key] = _Shared(connect(), 1)
        else:
            shared.users += 1
        return shared.client


def release(key: Hashable) -> None:
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


def settings_key(*settings: object) -> Hashable:
    """A key that is equal for equal settings of this process: a client does not survive a fork."""
    return (os.getpid(), *map(_frozen, settings))


def _frozen(value: object) -> Hashable:
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), _frozen(inner)) for name, inner in value.items()))
    if isinstance(value, list | tuple | set):
        return tuple(map(_frozen, value))
    return (type(value).__name__, value if isinstance(value, Hashable) else id(value))
