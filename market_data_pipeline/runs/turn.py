"""Turns: of all runs of an instance, one at a time asks Brapi, and one publishes.

A turn is a lock: an advisory lock of PostgreSQL if the instance is on PostgreSQL, otherwise a
locked file in the folder of the instance. The server or the system releases it when the process
that holds it ends, however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from zlib import crc32

import dagster as dg
from filelock import FileLock, Timeout
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError

from market_data_pipeline import ClearError
from market_data_pipeline.runs.dagster_internals import postgres_url

BRAPI, KAFKA, B3 = "market_data_brapi", "market_data_kafka", "market_data_b3"
SECONDS_BETWEEN_LINES = 60.0
# A wait is in slices, so that a run can be terminated while it waits.
SLICE_SECONDS = 1
LOCK_NOT_AVAILABLE = "55P03"
# If a host fails without closing its connections, its turn is released after a minute.
ON_POSTGRES = f"""
SET lock_timeout = '{SLICE_SECONDS}s';
SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
"""

# Waits for a slice; returns whether the lock was acquired.
Acquire = Callable[[], bool]


@contextmanager
def turn(context: dg.AssetExecutionContext, name: str) -> Iterator[None]:
    """Waits until no other run has the turn of that name, and holds it in the `with` block.

    Only the run's `max_runtime` limits the wait; the log says that it waits.

    Raises:
        ClearError: the file cannot be locked, or the server does not answer.
    """
    url = postgres_url(context.instance)
    lock = _on_postgres(url, name) if url else _in_a_file(context.instance, name)
    with ExitStack() as held:
        logged_at = float("-inf")
        try:
            acquire = held.enter_context(lock)
            while not acquire():
                if time.monotonic() - logged_at >= SECONDS_BETWEEN_LINES:
                    logged_at = time.monotonic()
                    context.log.info(f"Waiting for another run to release {name}.")
        except OperationalError as error:
            reason = f"{error.orig}".partition("\n")[0]
            raise ClearError(
                f"PostgreSQL did not give this run the lock {name} ({reason}): see that the "
                "server of the Dagster instance is up, then materialize again."
            ) from None
        yield


@contextmanager
def _in_a_file(instance: dg.DagsterInstance, name: str) -> Iterator[Acquire]:
    path = Path(instance.storage_directory()) / f"{name}.lock"
    lock = FileLock(path, thread_local=False)

    def acquire() -> bool:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=SLICE_SECONDS, poll_interval=0.02)
        except Timeout:
            return False
        except OSError as error:
            raise ClearError(
                f"{path} cannot be locked: {error.strerror}. Let the user of the run write to it "
                "and to its folder, then materialize again."
            ) from None
        return True

    try:
        yield acquire
    finally:
        lock.release()


@contextmanager
def _on_postgres(url: str, name: str) -> Iterator[Acquire]:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:  # which releases the lock when it is closed
        connection.exec_driver_sql(ON_POSTGRES)

        def acquire() -> bool:
            try:
                connection.exec_driver_sql(f"SELECT pg_advisory_lock({crc32(name.encode())})")
            except OperationalError as error:
                if getattr(error.orig, "pgcode", "") != LOCK_NOT_AVAILABLE:
                    raise
                return False
            return True

        yield acquire
