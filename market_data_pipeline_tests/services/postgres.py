"""PostgreSQL for the tests: the machine's own, on loopback, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from market_data_pipeline_tests.supervised import free_ports

PASSWORD = "password-of-the-tests"
DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def installed() -> bool:
    """Whether there is a PostgreSQL to run."""
    return _program("initdb") is not None


class Postgres:
    """One server with an empty database; it runs while the context lasts."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._data = self._folder / "data"

    def __enter__(self) -> Self:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (self._folder, password):
                shutil.chown(path, "nobody")
        self._run("initdb", "-U", "dagster", "-A", "scram-sha-256", f"--pwfile={password}")
        self._start("start")
        return self

    def __exit__(self, *_: object) -> None:
        self._run("pg_ctl", "stop", "-m", "immediate")
        shutil.rmtree(self._folder)

    def crash(self) -> None:
        """Ends every connection without a word, and starts again from what is on disk."""
        self._start("restart", "-m", "immediate")

    def _start(self, *how: str) -> None:
        listen = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1"
        self._run("pg_ctl", *how, "-w", "-l", str(self._folder / "log"), "-o", listen)

    def _run(self, program: str, *arguments: str) -> None:
        """Runs one of PostgreSQL's programs, as a user that it does not refuse to serve."""
        user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
        command = [*user, str(_program(program)), "-D", str(self._data), *arguments]
        # pg_ctl's server keeps the output open: a pipe would never end.
        subprocess.run(command, cwd=self._folder, stdout=subprocess.DEVNULL, check=True)


def _program(name: str) -> str | None:
    folders = [os.environ.get("PATH", ""), *map(str, DEBIAN)]
    return shutil.which(name, path=os.pathsep.join(folders))
