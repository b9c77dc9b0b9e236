"""The processes of docker-compose.yml, without containers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from market_data_pipeline_dev.process import Child, ChildDiedError
from market_data_pipeline_tests.supervised import OURS, ROOT, free_ports

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def processes_of(services: Mapping[str, Any]) -> list[str]:
    """The Dagster processes, in the order of their dependencies."""
    ours = [name for name in services if "market-data-pipeline" in services[name].get("image", "")]
    return sorted(ours, key=lambda name: "--module-name" not in services[name]["command"])


PROCESSES = processes_of(COMPOSE["services"])


def services_with(override: Path) -> dict[str, Any]:
    """The services of compose with a second file over them, merged as compose does it."""
    services = dict(COMPOSE["services"])
    for name, service in yaml.safe_load(override.read_text())["services"].items():
        base = COMPOSE["services"][service.get("extends", {}).get("service", name)]
        files = [*base.get("env_file", []), *service.get("env_file", [])]
        services[name] = {**base, **service, **({"env_file": files} if files else {})}
    return services


class Processes:
    """The three Dagster processes, as compose would run them: on free ports of the loopback.

    Args:
        folder: becomes the working directory and DAGSTER_HOME, with the files of the image.
        instance: the text of the instance's `dagster.yaml`.
        settings: values of the variables that compose names; a process gets those that compose
            gives it, and the code location all, as it does those of `.env`.
        module: the module of a code location.
        services: of compose.
    """

    def __init__(
        self,
        folder: Path,
        instance: str,
        settings: Mapping[str, str],
        module: str,
        services: Mapping[str, Any] = COMPOSE["services"],
    ) -> None:
        (folder / "deploy").mkdir(parents=True)
        (folder / "dagster.yaml").write_text(instance)
        self.names = processes_of(services)
        self._services = services
        self.ports = dict(zip(self.names, map(str, free_ports(len(self.names))), strict=True))
        self._copy_workspaces(folder / "deploy", self.ports)
        self.url = f"http://127.0.0.1:{self.ports['webserver']}"
        self.home = folder
        here = {
            "CODE_LOCATION_HOST": "127.0.0.1",
            "CODE_LOCATION_PORT": self.ports["code-location"],
        }
        self._settings = {**settings, **here}
        same = {"0.0.0.0": "127.0.0.1", "market_data_pipeline.definitions": module}
        self._ours = {
            name: same | {"3000": port, "4000": port} for name, port in self.ports.items()
        }
        self._running: dict[str, Child] = {}

    @staticmethod
    def _copy_workspaces(folder: Path, ports: Mapping[str, str]) -> None:
        """Copies `deploy`, with our ports for the hosts that its workspaces name."""
        shutil.copytree(ROOT / "deploy", folder, dirs_exist_ok=True)
        for path in folder.rglob("workspace.yaml"):
            workspace = yaml.safe_load(path.read_text())
            for server in (each["grpc_server"] for each in workspace["load_from"]):
                if port := ports.get(str(server["host"])):
                    server |= {"host": "127.0.0.1", "port": int(port)}
            path.write_text(yaml.safe_dump(workspace))

    def start(self, *names: str) -> None:
        """Starts these processes, or all."""
        for name in names or self.names:
            ours = self._ours[name]
            command = [ours.get(word, word) for word in self._services[name]["command"]]
            log = self.home.parent / f"{name}.log"
            self._running[name] = Child(
                name,
                self._at_home(command),
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
        ours = self._ours[name]
        test = self._services[name]["healthcheck"]["test"][1:]
        command = [word.replace("3000", ours["3000"]) for word in test]
        ended = subprocess.run(
            self._at_home([ours.get(word, word) for word in command]),
            env=self._environment(name),
            capture_output=True,
        )
        return ended.returncode == 0

    def _at_home(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command of compose."""
        return ["env", f"--chdir={self.home}", *command]

    def _environment(self, name: str) -> dict[str, str]:
        machine = {key: value for key, value in os.environ.items() if not OURS.match(key)}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        service = self._services[name]
        names = self._settings if "env_file" in service else service["environment"]
        ours = {key: self._settings[key] for key in names}
        for file in service.get("env_file", []):
            if isinstance(file, str):  # the other one is `.env`, which may be missing
                found = dotenv_values(self.home / file)
                ours |= {key: value for key, value in found.items() if value}
        return {
            **machine,
            **ours,
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "DAGSTER_HOME": str(self.home),
        }
