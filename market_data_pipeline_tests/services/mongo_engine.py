"""The real MongoDB engine for the tests: WiredTiger on disk, one process on loopback.

    python -m market_data_pipeline_tests.services.mongo_engine make test-services

runs a command with the engine's address in TEST_MONGO_URI.

The engine is a package of npm; `mongo-engine/package-lock.json` pins its version and checksums.
It has no authentication, no TLS, no transactions and no change streams. Its library needs glibc
2.38: on an older Debian, the glibc of a newer one is unpacked beside it, for this process alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from market_data_pipeline_dev.process import Child
from market_data_pipeline_tests.services.kafka_broker import (
    ServiceUnavailableError,
    alone,
    cache,
    run,
)

URI = "TEST_MONGO_URI"
PACKAGE = Path(__file__).with_name("mongo-engine")
NEEDED_GLIBC = (2, 38)
NEWER_DEBIAN = "trixie"


@contextlib.contextmanager
def mongo_engine() -> Iterator[str]:
    """Runs the engine on an empty folder until the context ends.

    Yields:
        Its address, `mongodb://…`: the one in TEST_MONGO_URI if that is set.

    Raises:
        ServiceUnavailableError: what it needs is neither here nor can be downloaded.
    """
    if uri := os.environ.get(URI):
        yield uri
        return
    with alone():
        modules, loader = _modules(), _loader()
    with tempfile.TemporaryDirectory(prefix="mongo-") as made:
        folder = Path(made)
        (data := folder / "data").mkdir()
        command = [*loader, str(shutil.which("node")), str(PACKAGE / "serve.js"), str(data)]
        environment = os.environ | {"NODE_PATH": str(modules)}
        child = Child("The MongoDB engine", command, environment, folder / "log")
        try:
            yield child.said(r"(mongodb://\S+)\n")
        finally:
            child.stop()


def _modules() -> Path:
    """The folder of the npm packages that the lock file names, downloaded if need be."""
    lock = PACKAGE / "package-lock.json"
    folder = cache() / f"mongo-engine-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not (folder / "node_modules").exists():
        with made_whole(folder) as draft:
            for file in (lock, PACKAGE / "package.json"):
                shutil.copy(file, draft)
            run(draft, "npm", "ci", "--ignore-scripts", "--no-fund", "--no-audit")
    return folder / "node_modules"


def _loader() -> list[str]:
    """What a command has to start with to run with a glibc that is new enough."""
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split("."))) >= NEEDED_GLIBC:
        return []
    folder = cache() / f"glibc-{NEWER_DEBIAN}"
    if not folder.exists():
        with made_whole(folder) as draft:
            _unpack_newer_glibc(draft, version)
    (loader,) = folder.glob("usr/lib*/ld-linux-*.so.*")
    (libraries,) = folder.glob("usr/lib/*-linux-gnu")
    return [str(loader), "--library-path", str(libraries)]


def _unpack_newer_glibc(folder: Path, version: str) -> None:
    """Unpacks the packages of a newer Debian, from the archives that apt is set up for.

    apt verifies them with the keys that it has.
    """
    system = platform.freedesktop_os_release()
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    if system["ID"] != "debian" or not sources.exists():
        raise ServiceUnavailableError(
            f"The MongoDB engine needs glibc 2.38, and this system has {version}: set {URI} to the "
            "address of a MongoDB."
        )
    apt, debs = folder / "apt", folder / "debs"
    debs.mkdir()
    (apt / "lists" / "partial").mkdir(parents=True)
    newer = sources.read_text().replace(system["VERSION_CODENAME"], NEWER_DEBIAN)
    (apt / "newer.sources").write_text(newer)
    options = {
        "Dir::Etc::SourceList": apt / "newer.sources",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": apt / "lists",
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    run(folder, *command, "update")
    run(debs, *command, "download", "libc6", "libstdc++6", "libgcc-s1")
    for package in debs.iterdir():
        run(folder, "dpkg", "-x", str(package), str(folder))
    shutil.rmtree(apt)
    shutil.rmtree(debs)


@contextlib.contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A folder to fill that becomes `folder` when it is filled, and is removed if it is not."""
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as made:
        draft = Path(made) / "draft"
        draft.mkdir()
        yield draft
        draft.rename(folder)


def main() -> int:
    """Runs the command of the arguments with the engine."""
    try:
        with mongo_engine() as uri:
            return subprocess.run(sys.argv[1:], env=os.environ | {URI: uri}).returncode
    except ServiceUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
