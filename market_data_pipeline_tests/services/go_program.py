"""Programs in Go for the tests: built once, from the module proxy, into the tests' cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from market_data_pipeline_tests.services.kafka_broker import ServiceUnavailableError, alone, cache


@alone()
def go_program(module: str, version: str, files: Mapping[str, str] | None = None) -> Path:
    """The program `cmd/NAME` of a Go module, where NAME is its last part in lower case.

    Args:
        module: such as `github.com/versity/versitygw`.
        version: such as `v1.8.0`.
        files: what its build needs and the module proxy does not have: texts by their paths.

    Raises:
        ServiceUnavailableError: Go is missing, or the module cannot be had.
    """
    name = module.rsplit("/", 1)[1].lower()
    program = cache() / "go" / version / name
    if program.exists():
        return program
    if shutil.which("go") is None:
        raise ServiceUnavailableError("`go` is not installed: Go 1.24 or newer is needed.")
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source, unfinished = Path(folder, "source"), Path(folder, name)
        found = json.loads(_go(Path(folder), "mod", "download", "-json", f"{module}@{version}"))
        # The folder of downloads is read-only, and so is a copy of it.
        subprocess.run(["cp", "-r", "--no-preserve=mode", found["Dir"], source], check=True)
        for path, text in (files or {}).items():
            (source / path).write_text(text)
        _go(source, "build", "-o", str(unfinished), f"./cmd/{name}")
        shutil.move(unfinished, program)
    return program


def _go(folder: Path, *arguments: str) -> str:
    ended = subprocess.run(
        ["nice", "go", *arguments], cwd=folder, capture_output=True, text=True, timeout=1200
    )
    if ended.returncode != 0:
        raise ServiceUnavailableError(f"Go failed:\n{ended.stdout}{ended.stderr[-2000:]}")
    return ended.stdout
