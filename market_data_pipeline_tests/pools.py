"""Runs that ask for the place of a pool at the same instant."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import dagster as dg

from market_data_pipeline.runs.dagster_internals import claim


def claimed_at_once(instances: Sequence[dg.DagsterInstance], pool: str) -> list[bool]:
    """Whether each of as many runs as there are connections to one instance was let in."""
    ready = Barrier(len(instances))

    def let_in(number: int) -> bool:
        ready.wait()
        return claim(instances[number], pool, f"run {number}", "step") is None

    with ThreadPoolExecutor(len(instances)) as threads:
        return list(threads.map(let_in, range(len(instances))))
