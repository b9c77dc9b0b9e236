"""`make dev` as a process, in a folder of its own, on ports of its own."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Longer than anything takes on a machine that is busy with other tests, too.
PATIENCE_SECONDS = 300
OURS = re.compile(
    r"ASSET_|B3_|BRAPI_|KAFKA_|MONGO_|MARKET_DATA_|DAGSTER_|WATCHLIST_|SYNC_|PARTITIONS_|QUOTES_|PUBLISH_"
)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def settings(state: Path) -> dict[str, str]:
    """The environment of a deployment: nothing configured, and nothing shared with another."""
    dagster, sandbox, mongo = free_ports(3)
    env = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    return {
        **env,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "MARKET_DATA_HOME": str(state),
        "DAGSTER_PORT": str(dagster),
        "SANDBOX_PORT": str(sandbox),
        "EMBEDDED_MONGO_PORT": str(mongo),
        "BRAPI_MIN_INTERVAL_SECONDS": "0.05",
    }


def wait_until(true: Callable[[], object], what: str) -> None:
    """Waits until it is true; a test that waits for longer has failed."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < patience, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.1)


class Supervisor:
    """`python -m market_data_pipeline_dev.dev` in a folder, with all it says in a file there.

    `cwd` is another folder to run it in.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], cwd: Path | None = None) -> None:
        self._state = env["MARKET_DATA_HOME"]
        self._log = folder / f"output-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "market_data_pipeline_dev.dev"],
                cwd=cwd or folder,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        """Waits until it has said so; an end before that is a failure."""
        patience = time.monotonic() + PATIENCE_SECONDS
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < patience, self.output
            time.sleep(0.1)

    def first_window(self) -> str:
        """Waits for the first run that materializes quotes, and returns the key of its window.

        It is the run at startup, but not in the minute before a window ends.
        """
        self.wait_for("quotes: ")
        found = re.search(r"(?:materialized for|Window) (\S+-\d{4})\b.*quotes: ", self.output)
        assert found, self.output
        return found[1]

    def end(self, signal_number: int) -> int:
        """Sends it a signal and returns its exit status."""
        self.process.send_signal(signal_number)
        return self.process.wait(60)

    def left_behind(self) -> dict[int, str]:
        """The processes of the deployment that run, by number: they share its environment."""
        marker = f"MARKET_DATA_HOME={self._state}".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            # It may have just ended, or be another user's.
            with contextlib.suppress(OSError):
                if marker in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        return found
