"""The one node of the tests' cluster: it runs pods as processes, with the rights that they ask for.

It takes the part of the scheduler and of the kubelet. A pod is a process with a host name, process
ids, a root directory and mounts of its own; its user is that of its security context, and it has no
right, as the API server admits none that asks for more. The image is this checkout with its virtual
environment. The network is the machine's, listening is on the loopback alone, and the names of
Services are in /etc/hosts. There are no init containers, probes, resource limits or seccomp
profiles, and the API server cannot fetch a pod's log.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from kubernetes import client
from urllib3.exceptions import HTTPError

from market_data_pipeline_tests.kubernetes.control_plane import ControlPlane
from market_data_pipeline_tests.supervised import ROOT

NAME = "node"
UNREACHABLE = (client.ApiException, HTTPError, OSError)
IMAGE = {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "PYTHONPATH": str(ROOT),
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/opt/dagster",
}
# $1: an empty directory; $2: what to mount, a line each: source, tab, place; then the command.
# What is the machine's own stays visible, but for /run and what is mounted over it. The root is
# read-only, as the security contexts ask for.
CONTAINER = r"""
set -e
root=$1 mounts=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$root"
borrow() {
    mkdir -p "$root$1"
    for path in "$1"/* "$1"/.[!.]*; do
        name=${path##*/}
        case $path in /proc | /run | //proc | //run | /opt/dagster) continue ;; esac
        if [ -L "$path" ]; then cp -P "$path" "$root$1/$name"
        elif [ "$path" = //root ] || [ "$path" = //opt ]; then borrow "/$name"
        elif [ -d "$path" ]; then mkdir "$root$1/$name"; mount --rbind "$path" "$root$1/$name"
        elif [ -f "$path" ]; then touch "$root$1/$name"; mount --bind "$path" "$root$1/$name"
        fi
    done
}
borrow /
mkdir -p "$root/proc" "$root/run" "$root/opt/dagster"
mount -t proc proc "$root/proc"
while IFS='	' read -r source place; do
    if [ -d "$source" ]; then mkdir -p "$root$place"
    else mkdir -p "$root${place%/*}"; [ -e "$root$place" ] || touch "$root$place"; fi
    mount --bind "$source" "$root$place"
done <"$mounts"
mount -o remount,ro "$root"
exec chroot "$root" env --chdir=/opt/dagster "$@"
"""


@dataclass
class _Container:
    process: subprocess.Popen[bytes]
    started: datetime
    restarts: int = 0
    deadline: float | None = None
    """When it is killed, by the monotonic clock, if it has been told to end."""

    def signal(self, number: int) -> None:
        """Sends a signal to the first process of the container, as a container runtime does."""
        pid = self.process.pid
        try:
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                os.kill(int(child), number)
        except OSError:
            pass  # it has just ended

    @property
    def exit_code(self) -> int | None:
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code


@dataclass
class Node:
    """Runs the pods of a namespace while the context lasts.

    Args:
        control_plane: of the cluster.
        namespace: whose pods it runs.
        folder: of the pods' files and of their output, `NAME.log`.
        services: names of Services, which are this machine.
    """

    control_plane: ControlPlane
    namespace: str
    folder: Path
    services: list[str]

    def __post_init__(self) -> None:
        self._api = self.control_plane.api()
        self._core = client.CoreV1Api(self._api)
        self._containers: dict[str, _Container] = {}
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise RuntimeError("Only root can run pods: run the tests of Kubernetes as root")
        self._core.create_node({"metadata": {"name": NAME}})
        hosts = f"127.0.0.1 localhost {' '.join(self.services)}\n"
        (self.folder / "hosts").write_text(hosts)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for container in self._containers.values():
            container.signal(signal.SIGKILL)
            container.process.wait()
        self._api.close()

    def kill(self, pod: str) -> None:
        """Kills a pod as the kernel does when it takes too much memory."""
        self._containers[pod].signal(signal.SIGKILL)

    def log(self, pod: str) -> str:
        """The output of a pod so far."""
        log = self.folder / f"{pod}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def check(self) -> None:
        """Raises what has ended the node, if it has ended."""
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        try:
            self._sync_until_the_end()
        except Exception as error:
            self._failure = error

    def _sync_until_the_end(self) -> None:
        while not self._ended.wait(0.1):
            try:
                pods = self._core.list_namespaced_pod(self.namespace).items
                for pod in pods:
                    self._sync(pod)
                for name in self._containers.keys() - {pod.metadata.name for pod in pods}:
                    self._containers.pop(name).signal(signal.SIGKILL)
            except UNREACHABLE:
                continue  # the pods run on

    def _sync(self, pod: client.V1Pod) -> None:
        name = pod.metadata.name
        container = self._containers.get(name)
        if pod.spec.node_name is None:
            target = client.V1ObjectReference(kind="Node", name=NAME)
            binding = client.V1Binding(metadata={"name": name}, target=target)
            # The client cannot read the answer, which has no target.
            self._core.create_namespaced_pod_binding(
                name, self.namespace, binding, _preload_content=False
            )
        elif pod.metadata.deletion_timestamp:
            self._end(pod, container)
        elif pod.status.phase in ("Succeeded", "Failed"):
            pass
        elif container is None:
            self._run_container(pod)
        elif container.exit_code is not None and pod.spec.restart_policy == "Always":
            self._run_container(pod, container.restarts + 1)
        elif container.exit_code is not None:
            self._report(pod, container)

    def _run_container(self, pod: client.V1Pod, restarts: int = 0) -> None:
        container = self._containers[pod.metadata.name] = self._start(pod)
        container.restarts = restarts
        self._report(pod, container, "Running")

    def _end(self, pod: client.V1Pod, container: _Container | None) -> None:
        now = time.monotonic()
        if container and container.exit_code is None:
            if container.deadline is None:
                grace = pod.metadata.deletion_grace_period_seconds
                container.deadline = now + (30 if grace is None else grace)
                container.signal(signal.SIGTERM)
            elif now > container.deadline:
                container.signal(signal.SIGKILL)
            return
        self._containers.pop(pod.metadata.name, None)
        if container:
            self._report(pod, container)
        self._core.delete_namespaced_pod(pod.metadata.name, self.namespace, grace_period_seconds=0)

    @staticmethod
    def _state(container: _Container) -> dict[str, Any]:
        started = {"startedAt": container.started}
        if container.exit_code is None:
            return {"running": started}
        reason = {0: "Completed", 137: "OOMKilled"}.get(container.exit_code, "Error")
        ended = {"exitCode": container.exit_code, "reason": reason, "finishedAt": datetime.now(UTC)}
        return {"terminated": started | ended}

    def _report(self, pod: client.V1Pod, container: _Container, phase: str = "") -> None:
        """Sets the status of a pod, from which the controllers make that of its Job."""
        spec, state = pod.spec.containers[0], self._state(container)
        phase = phase or ("Failed" if container.exit_code else "Succeeded")
        running = "running" in state
        status = {
            "name": spec.name,
            "image": spec.image,
            "imageID": "",
            "ready": running,
            "started": running,
            "restartCount": container.restarts,
            "state": state,
        }
        kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        conditions = [
            {"type": kind, "status": str(running or kind in ("Initialized", "PodScheduled"))}
            for kind in kinds
        ]
        body = {"phase": phase, "containerStatuses": [status], "conditions": conditions}
        self._core.patch_namespaced_pod_status(pod.metadata.name, self.namespace, {"status": body})

    def _start(self, pod: client.V1Pod) -> _Container:
        (spec,) = pod.spec.containers
        name = pod.metadata.name
        files = self.folder / name
        shutil.rmtree(files, ignore_errors=True)
        (files / "root").mkdir(parents=True)
        mounts = [(self.folder / "hosts", "/etc/hosts"), (ROOT / "deploy", "/opt/dagster/deploy")]
        mounts += self._volumes(pod, files)
        mounts += [(self.folder, str(self.folder))]  # what pods share is there, also in /tmp
        table = files / "mounts"
        table.write_text("".join(f"{source}\t{place}\n" for source, place in mounts))
        command = [*(spec.command or []), *(spec.args or [])]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--uts", "--pid", "--fork"),
                    *("sh", "-c", 'hostname "$0"; exec sh -c "$@"', name),
                    *(CONTAINER, "container", str(files / "root"), str(table)),
                    *_rights(spec.security_context),
                    *("--", *(word.replace("0.0.0.0", "127.0.0.1") for word in command)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(spec, name),
                process_group=0,
            )
        return _Container(process, datetime.now(UTC))

    def _environment(self, container: client.V1Container, pod: str) -> dict[str, str]:
        """What is in `envFrom` and `env`, over what is in the image."""
        env = {key: os.environ[key] for key in ("LANG", "TZ") if key in os.environ} | IMAGE
        env |= {"HOSTNAME": pod, "NO_PROXY": "127.0.0.1"}
        env |= {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}
        env |= {"KUBERNETES_SERVICE_PORT": str(self.control_plane.port)}
        for source in container.env_from or []:
            if source.config_map_ref:
                env |= self._config_map(source.config_map_ref.name)
            if source.secret_ref:
                env |= self.secret(source.secret_ref.name)
        for variable in container.env or []:
            if variable.value_from is None:
                env[variable.name] = variable.value or ""
            else:
                reference = variable.value_from.secret_key_ref
                env[variable.name] = self.secret(reference.name)[reference.key]
        return env

    def _volumes(self, pod: client.V1Pod, files: Path) -> list[tuple[Path, str]]:
        """Writes what the volumes contain; where it is, and where the pod wants it."""
        folders = {}
        for volume in pod.spec.volumes or []:
            folders[volume.name] = folder = files / volume.name
            folder.mkdir()
            folder.chmod(0o777 if volume.empty_dir else 0o755)
            contents = self._config_map(volume.config_map.name) if volume.config_map else {}
            for source in volume.projected.sources if volume.projected else []:
                if source.config_map:
                    contents |= self._config_map(source.config_map.name)
                if source.service_account_token:
                    account = pod.spec.service_account_name
                    contents[source.service_account_token.path] = self.token(account)
            for file, text in contents.items():
                (folder / file).write_text(text)
                (folder / file).chmod(0o644)
        return [
            # /var/run is a link to /run.
            (
                folders[mount.name] / (mount.sub_path or ""),
                mount.mount_path.rstrip("/").replace("/var/run/", "/run/"),
            )
            for mount in pod.spec.containers[0].volume_mounts or []
        ]

    def token(self, account: str) -> str:
        """A token of a ServiceAccount, as its pods get it."""
        request = {"spec": {"expirationSeconds": 3600, "audiences": []}}
        answer = self._core.create_namespaced_service_account_token(
            account, self.namespace, request
        )
        return str(answer.status.token)

    def _config_map(self, name: str) -> dict[str, str]:
        return dict(self._core.read_namespaced_config_map(name, self.namespace).data or {})

    def secret(self, name: str) -> dict[str, str]:
        """What is in a Secret."""
        data = self._core.read_namespaced_secret(name, self.namespace).data or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}


def _rights(context: client.V1SecurityContext) -> list[str]:
    """How a command gets the user of a security context, without any right, as all pods ask for."""
    user = [f"--reuid={context.run_as_user}", f"--regid={context.run_as_group}", "--clear-groups"]
    return ["setpriv", *user, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
