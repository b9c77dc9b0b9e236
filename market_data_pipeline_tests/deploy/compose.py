"""The processes of docker-compose.yml, without containers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from market_data_pipeline.local.process import Child, ChildDiedError
from market_data_pipeline_tests.supervised import OURS, ROOT, free_ports

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
# In the order of their dependencies.
PROCESSES = ("code-location", "webserver", "daemon")


class Processes:
    """The three Dagster processes, as compose would run them: on free ports of the loopback.

    Args:
        folder: becomes the working directory and DAGSTER_HOME, with the files of the image.
        instance: the text of the instance's `dagster.yaml`.
        settings: values of the variables that compose names; a process gets those that compose
            gives it, and the code location all, as it does those of `.env`.
        module: the code location's module.
    """

    def __init__(
        self, folder: Path, instance: str, settings: Mapping[str, str], module: str
    ) -> None:
        (folder / "deploy").mkdir(parents=True)
        (folder / "dagster.yaml").write_text(instance)
        shutil.copy(ROOT / "deploy" / "workspace.yaml", folder / "deploy")
        code, web = map(str, free_ports(2))
        self.url = f"http://127.0.0.1:{web}"
        self.home = folder
        here = {"CODE_LOCATION_HOST": "127.0.0.1", "CODE_LOCATION_PORT": code}
        self._settings = {**settings, **here}
        self._ours = {
            "0.0.0.0": "127.0.0.1",
            "3000": web,
            "4000": code,
            "market_data_pipeline.definitions": module,
        }
        self._running: dict[str, Child] = {}

    def start(self, *names: str) -> None:
        """Starts these processes, or all."""
        for name in names or PROCESSES:
            command = [self._ours.get(word, word) for word in COMPOSE["services"][name]["command"]]
            log = self.home.parent / f"{name}.log"
            self._running[name] = Child(
                name,
                ["env", f"--chdir={self.home}", *command],
                self._environment(name),
                log,
                stop_signal=signal.SIGKILL,
            )

    def kill(self, *names: str) -> None:
        """Kills these processes, or all, and the runs that are part of them."""
        for name in names or [*self._running]:
            self._running.pop(name).stop()

    def restart_those_that_ended(self) -> None:
        """What `restart: unless-stopped` does."""
        for name, child in [*self._running.items()]:
            try:
                child.check()
            except ChildDiedError:
                child.stop()
                self.start(name)

    def is_healthy(self, name: str) -> bool:
        """What its health check says."""
        test = COMPOSE["services"][name]["healthcheck"]["test"][1:]
        command = [word.replace("3000", self._ours["3000"]) for word in test]
        ended = subprocess.run(
            [self._ours.get(word, word) for word in command],
            cwd=self.home,
            env=self._environment(name),
            capture_output=True,
        )
        return ended.returncode == 0

    def _environment(self, name: str) -> dict[str, str]:
        machine = {key: value for key, value in os.environ.items() if not OURS.match(key)}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        service = COMPOSE["services"][name]
        names = self._settings if "env_file" in service else service["environment"]
        ours = {key: self._settings[key] for key in names}
        return {
            **machine,
            **ours,
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "DAGSTER_HOME": str(self.home),
        }
