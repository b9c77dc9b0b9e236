"""The programs of `examples/`, built as their readers build them, into the tests' cache."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from market_data_pipeline_tests.services.kafka_broker import (
    ServiceUnavailableError,
    alone,
    cache,
    maven,
    run,
)
from market_data_pipeline_tests.services.mongo_engine import made_whole
from market_data_pipeline_tests.supervised import ROOT

EXAMPLES = ROOT / "examples"
BUILT = {"target", "node_modules"}


def spring_boot() -> list[str]:
    """The command that runs it, as for each of the others."""
    folder = _built("spring-boot", lambda draft: maven("package", folder=draft))
    return ["java", "-Xmx128m", "-jar", str(folder / "target" / "quotes.jar")]


def python() -> list[str]:
    return [sys.executable, str(EXAMPLES / "python" / "consume.py")]


def kafkajs() -> list[str]:
    return ["node", str(_javascript() / "kafkajs.mjs")]


def confluent() -> list[str]:
    return ["node", str(_javascript() / "confluent.mjs")]


def go() -> list[str]:
    folder = _built("go", lambda draft: run(draft, "go", "build", "-o", "quotes", "."))
    return [str(folder / "quotes")]


def _javascript() -> Path:
    """The examples beside the packages that they need, which take minutes to build."""
    folder = _built("javascript", _install, only="package*")
    for file in (EXAMPLES / "javascript").glob("*.mjs"):
        shutil.copy(file, folder)
    return folder


def _install(folder: Path) -> None:
    """Confluent's client has a part in C++, which is built here where it cannot be downloaded."""
    node = Path(shutil.which("node") or "node").resolve().parents[1]
    headers = [f"npm_config_nodedir={node}"] if (node / "include" / "node").exists() else []
    run(folder, "env", "CKJS_LINKING=dynamic", *headers, "npm", "ci", "--no-fund", "--no-audit")


@alone()
def _built(name: str, build: Callable[[Path], object], only: str = "*") -> Path:
    """A copy of an example's files, built once for each content of theirs.

    Raises:
        ServiceUnavailableError: what it needs is neither here nor can be downloaded.
    """
    top = EXAMPLES / name
    files = sorted(
        path
        for path in top.rglob(only)
        if path.is_file() and not BUILT & set(path.relative_to(top).parts)
    )
    content = b"".join(str(path.relative_to(top)).encode() + path.read_bytes() for path in files)
    folder = cache() / f"example-{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    if not folder.exists():
        with made_whole(folder) as draft:
            for path in files:
                (draft / path.relative_to(top)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, draft / path.relative_to(top))
            try:
                build(draft)
            except FileNotFoundError as error:
                raise ServiceUnavailableError(f"{error.filename} is not installed.") from None
    return folder
