"""In place of a base image of Python: Debian by debootstrap, with a Python of this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from market_data_pipeline_tests.services.kafka_broker import ServiceUnavailableError, cache, run
from market_data_pipeline_tests.services.mongo_engine import made_whole

# What the image of Python adds to Debian, beside Python.
PACKAGES = (
    *("ca-certificates", "netbase", "tzdata", "libbz2-1.0", "libexpat1", "libffi8", "liblzma5"),
    *("libncursesw6", "libreadline8", "libsqlite3-0", "libssl3", "libuuid1", "zlib1g"),
)


def python_on_debian(image: str, root: Path) -> None:
    """Fills a folder with what `python:3.12.12-slim-bookworm` has, but for the patch of Python.

    Raises:
        ServiceUnavailableError: there is no debootstrap, or no such Python.
    """
    found = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-(\w+)", image)
    assert found, image
    version, release = found.groups()
    debian = cache() / "debian" / release
    if not debian.exists():
        debian.parent.mkdir(parents=True, exist_ok=True)
        packages = f"--include={','.join(PACKAGES)}"
        with made_whole(debian) as draft:
            run(draft, "debootstrap", "--variant=minbase", packages, release, str(draft))
    subprocess.run(["cp", "-a", "--reflink=auto", f"{debian}/.", str(root)], check=True)
    _copy_python(version, root / "usr" / "local")
    subprocess.run(["chroot", str(root), "/sbin/ldconfig"], check=True)


def _copy_python(version: str, target: Path) -> None:
    """Copies an installed Python of that version to where the image of Python has it."""
    script = "import sys; print(sys.base_prefix)"
    name = f"python{version}"
    program = sys.executable if sys.version.startswith(f"{version}.") else shutil.which(name)
    if program is None:
        raise ServiceUnavailableError(f"{name} is not installed.")
    asked = subprocess.run([program, "-c", script], capture_output=True, text=True, check=True)
    prefix = Path(asked.stdout.strip())
    if prefix == Path("/usr"):
        raise ServiceUnavailableError(f"{name} is part of the system: one of its own is needed.")
    for library in (prefix / "lib").glob("libpython*.so*"):
        shutil.copy(library, target / "lib", follow_symlinks=False)
    shutil.copy(prefix / "bin" / name, target / "bin" / name)
    for alias in ("python", "python3"):
        (target / "bin" / alias).symlink_to(name)
    packages = ("site-packages", "test", "idlelib", "__pycache__")
    ignored = shutil.ignore_patterns(*packages)
    shutil.copytree(prefix / "lib" / name, target / "lib" / name, ignore=ignored, symlinks=True)
    (target / "lib" / name / "site-packages").mkdir()
