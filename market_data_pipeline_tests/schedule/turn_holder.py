"""A process that takes a turn of an instance, as a run does, until a line comes or it is killed.

    python -m market_data_pipeline_tests.schedule.turn_holder DAGSTER_HOME PORT

While it has the turn it listens on the port: another one that has it at that moment fails there.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import dagster as dg

from market_data_pipeline.runs.turn import BRAPI, turn
from market_data_pipeline_tests.supervised import free_ports, wait_until


class Holder:
    """The process; a context manager that kills it."""

    def __init__(self, home: Path, port: int) -> None:
        command = [sys.executable, "-m", __name__, str(home), str(port)]
        self._output = home / f"said-by-{time.monotonic_ns()}"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output)

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def has_said(self, word: str) -> bool:
        return word in self._output.read_text().split()

    @property
    def is_in(self) -> bool:
        """Whether it has had the turn."""
        return self.has_said("in")

    def leave(self) -> None:
        """Lets it leave its turn, and sees it end well."""
        self.process.communicate(b"\n", timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait()


def a_turn_dies_with_its_holder(home: Path) -> None:
    """Four processes on an instance are in one after the other; no daemon runs."""
    (port,) = free_ports(1)
    with ExitStack() as stack:
        holders = [stack.enter_context(Holder(home, port)) for _ in range(4)]
        wait_until(lambda: all(each.has_said("asks") for each in holders), "all ask for the turn")
        _inside(holders)
        next(each for each in holders if not each.is_in).kill()
        for end in (Holder.kill, Holder.leave, Holder.leave):
            inside = _inside(holders)
            holders.remove(inside)
            end(inside)


def _inside(holders: list[Holder]) -> Holder:
    """The one that has the turn, as soon as one has."""
    wait_until(lambda: any(each.is_in for each in holders), "the turn is free")
    (inside,) = (each for each in holders if each.is_in)
    return inside


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(home: str, port: int) -> None:
    """Says that it asks, and that it is in."""
    with (
        dg.DagsterInstance.from_config(home) as instance,
        dg.build_asset_context(instance=instance) as context,
    ):
        _say("asks")
        with turn(context, BRAPI), socket.socket() as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(("127.0.0.1", port))
            alone.listen()
            _say("in")
            sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
