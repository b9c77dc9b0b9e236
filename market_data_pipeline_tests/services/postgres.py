"""PostgreSQL for the tests: the machine's own, on loopback, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from market_data_pipeline_tests.supervised import free_ports

PASSWORD = "password-of-the-tests"
DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class Postgres:
    """One server; it runs while the context lasts.

    Args:
        primary: the server that this one copies and follows; without one, the database is empty.
        address: of the loopback; a standby has the port of its primary.
    """

    def __init__(self, primary: Postgres | None = None, address: str = "127.0.0.1") -> None:
        self.address, self._primary = address, primary
        self.port: int = primary.port if primary else free_ports(1)[0]
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._data = self._folder / "data"

    def __enter__(self) -> Self:
        if _program("initdb") is None:
            raise RuntimeError("PostgreSQL is not installed: Debian's package is `postgresql`")
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (self._folder, password):
                shutil.chown(path, "nobody")
        if self._primary:
            source = ["-h", self._primary.address, "-p", str(self._primary.port), "-U", "dagster"]
            self._run("pg_basebackup", *source, "--write-recovery-conf", "--checkpoint=fast")
        else:
            self._run("initdb", "-U", "dagster", "-A", "scram-sha-256", f"--pwfile={password}")
        self._start("start")
        return self

    def __exit__(self, *_: object) -> None:
        if Path("/proc", self._postmaster()).exists():
            self._run("pg_ctl", "stop", "-m", "immediate")
        shutil.rmtree(self._folder)

    @property
    def settings(self) -> dict[str, str]:
        """The variables with which `deploy/dagster.yaml` finds it."""
        return {
            "DAGSTER_POSTGRES_HOST": self.address,
            "DAGSTER_POSTGRES_PORT": str(self.port),
            "DAGSTER_POSTGRES_DB": "postgres",
            "DAGSTER_POSTGRES_USER": "dagster",
            "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
        }

    @property
    def url(self) -> str:
        """Its address for SQLAlchemy."""
        return f"postgresql+psycopg2://dagster:{PASSWORD}@{self.address}:{self.port}/postgres"

    def crash(self) -> None:
        """Ends every connection without a word, and starts again from what is on disk."""
        self._start("restart", "-m", "immediate")

    def kill(self) -> None:
        """Kills the server and all of its processes, as the machine's failure would."""
        server = self._postmaster()
        listed = subprocess.run(["pgrep", "-P", server], capture_output=True, text=True, check=True)
        processes = [server, *listed.stdout.split()]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        while any(Path("/proc", process).exists() for process in processes):
            time.sleep(0.05)

    def start_again(self) -> None:
        """Starts a server that was killed, from what is on disk."""
        self._start("start")

    def promote(self) -> None:
        """Makes a standby take writes."""
        self._run("pg_ctl", "promote", "-w")

    def _postmaster(self) -> str:
        """The id of the server's first process, which may have been killed."""
        return (self._data / "postmaster.pid").read_text().split()[0]

    def _start(self, *how: str) -> None:
        listen = f"-p {self.port} -k {self._folder} -c listen_addresses={self.address}"
        self._run("pg_ctl", *how, "-w", "-l", str(self._folder / "log"), "-o", listen)

    def _run(self, program: str, *arguments: str) -> None:
        """Runs one of PostgreSQL's programs, as a user that it does not refuse to serve."""
        user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
        command = [*user, str(_program(program)), "-D", str(self._data), *arguments]
        # pg_ctl's server keeps the output open: a pipe would never end.
        subprocess.run(
            command,
            cwd=self._folder,
            env={**os.environ, "PGPASSWORD": PASSWORD},
            stdout=subprocess.DEVNULL,
            check=True,
        )


def _program(name: str) -> str | None:
    folders = [os.environ.get("PATH", ""), *map(str, DEBIAN)]
    return shutil.which(name, path=os.pathsep.join(folders))
