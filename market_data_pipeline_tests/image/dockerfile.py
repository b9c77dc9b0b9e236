"""Builds what a Dockerfile says without a Docker daemon: each stage is a folder, each RUN a chroot.

It knows the instructions that ours uses, and refuses any other.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec

# Ends as the program, in the folder that $1 names, with what is mounted there for it alone.
IN_ROOT = "set -e; root=$1; shift; {mounts}; cd /; exec chroot $root {user} {program}"
# How this machine reaches the package index, if not directly.
NETWORK = ("PIP_INDEX_URL", "PIP_CERT", "PIP_DEFAULT_TIMEOUT", "HTTPS_PROXY", "https_proxy")
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Image:
    """A stage, or what the last one has become."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    folder: str = "/"
    user: str = "0:0"
    volumes: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health_check: list[str] = field(default_factory=list)

    def run(self, script: str) -> None:
        """Runs a script of the shell in it, as a step of the build."""
        for name in NETWORK_FILES:
            target = self.root / name.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        mounts = [f"mount --bind {name} $root{name}" for name in NETWORK_FILES]
        network = {name: os.environ[name] for name in NETWORK if name in os.environ}
        ended = subprocess.run(
            self._inside(["/bin/sh", "-ec", script], mounts, ""),
            env=self.environment | network,
            capture_output=True,
            text=True,
        )
        if ended.returncode != 0:
            raise RuntimeError(f"{script}\n{ended.stdout[-1000:]}\n{ended.stderr[-3000:]}")

    def contained(
        self,
        command: Sequence[str],
        volumes: Mapping[str, Path],
        scratch: Sequence[str] = (),
        extra: Mapping[str, Path] | None = None,
    ) -> list[str]:
        """A command line that runs a command as a container would, on a read-only file system.

        Args:
            command: what to run, as the user of the image, without any right.
            volumes: folders by the place where they can be written to.
            scratch: places in memory that can be written to.
            extra: folders by the place where they can be read.
        """
        mounts = ["mount --bind $root $root", "mount -o remount,bind,ro $root"]
        for place, folder in {**volumes, **(extra or {})}.items():
            mounts.append(f"mount --bind {shlex.quote(str(folder))} $root{place}")
        mounts += [f"mount -o remount,bind,ro $root{place}" for place in extra or {}]
        # Every container has shared memory, read-only or not.
        for place in [*scratch, "/dev/shm"]:
            mounts.append(f"mount -t tmpfs -o mode=1777 tmpfs $root{place}")
        user, _, group = self.user.partition(":")
        rights = f"setpriv --reuid={user} --regid={group} --clear-groups --no-new-privs "
        return self._inside(command, mounts, rights + "--bounding-set=-all --inh-caps=-all --")

    def _inside(self, command: Sequence[str], mounts: Sequence[str], user: str) -> list[str]:
        start = ["sh", "-c", 'cd "$1"; shift; exec "$@"', "sh", self.folder, *command]
        script = IN_ROOT.format(
            mounts="; ".join([*mounts, "mount -t proc proc $root/proc"]),
            user=user,
            program=shlex.join(start),
        )
        return ["unshare", "--mount", "sh", "-c", script, "sh", str(self.root)]


def build(dockerfile: Path, base: Callable[[str, Path], None], folder: Path) -> Image:
    """The image of the last stage.

    Args:
        dockerfile: beside the files that it copies, and `.dockerignore`.
        base: makes the file system of a base image, by its name, in an empty folder.
        folder: becomes the place of all stages.
    """
    stages: dict[str, Image] = {}
    image = Image(folder)
    for instruction, value in instructions(dockerfile.read_text()):
        match instruction:
            case "FROM":
                source, _, name = value.partition(" AS ")
                image = stages[name or str(len(stages))] = Image(folder / str(len(stages)))
                image.root.mkdir(parents=True)
                base(source, image.root)
            case "ENV":
                for pair in shlex.split(_expanded(value, image)):
                    name, _, given = pair.partition("=")
                    image.environment[name] = given
            case "WORKDIR":
                image.folder = str(PurePosixPath(image.folder, value))
                _place(image, value).mkdir(parents=True, exist_ok=True)
            case "RUN":
                image.run(value)
            case "COPY" if value.startswith("--from="):
                name, source, target = value.removeprefix("--from=").split()
                there = _place(image, target)
                there.parent.mkdir(parents=True, exist_ok=True)
                copy = ["cp", "-al", str(_place(stages[name], source)), str(there)]
                subprocess.run(copy, check=True)
            case "COPY":
                _copy(dockerfile.parent, image, *shlex.split(value))
            case "USER":
                image.user = value
            case "VOLUME":
                image.volumes.append(value)
            case "HEALTHCHECK":
                image.health_check = json.loads(value.partition("CMD ")[2])
            case "CMD":
                image.command = json.loads(value)
            case "EXPOSE":
                pass
            case _:
                raise NotImplementedError(f"{instruction} {value}")
    return image


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile with what follows them."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if line.strip():
            instruction, _, value = line.partition(" ")
            yield instruction, value.strip()


def _expanded(value: str, image: Image) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda name: image.environment.get(name[1], ""), value)


def _place(image: Image, path: str) -> Path:
    """Where a path of an image is on this machine."""
    return image.root / str(PurePosixPath(image.folder, path)).lstrip("/")


def _copy(context: Path, image: Image, *paths: str) -> None:
    *sources, destination = paths
    target, ignored = _place(image, destination), _ignored(context)
    for source in sources:
        origin = context / source
        files = [file for file in (origin, *origin.rglob("*")) if file.is_file()]
        copied = [file for file in files if not ignored.match_file(file.relative_to(context))]
        if not copied:
            raise FileNotFoundError(f"COPY {source}: there is no such file that is not ignored")
        for file in copied:
            inside = file.relative_to(origin) if origin.is_dir() else Path(file.name)
            there = target / inside if origin.is_dir() or destination.endswith("/") else target
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, there)


def _ignored(context: Path) -> GitIgnoreSpec:
    """What `.dockerignore` says: as in `.gitignore`, but each line is of the top folder."""
    lines = (context / ".dockerignore").read_text().splitlines()
    return GitIgnoreSpec.from_lines(re.sub("^(!?)(?=[^#])", r"\1/", line) for line in lines)
