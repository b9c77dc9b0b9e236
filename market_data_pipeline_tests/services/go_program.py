"""Programs in Go for the tests: built once, from the module proxy, into the tests' cache."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from market_data_pipeline_tests.services.kafka_broker import alone, cache, run


@alone()
def go_program(module: str, version: str, files: Mapping[str, str] | None = None) -> Path:
    """The program `cmd/NAME` of a Go module, where NAME is its last part in lower case.

    Args:
        module: such as `github.com/versity/versitygw`.
        version: such as `v1.8.0`.
        files: what its build needs and the module proxy does not have: texts by their paths.

    Raises:
        ServiceUnavailableError: Go 1.24 is missing, or the module cannot be had.
    """
    name = module.rsplit("/", 1)[1].lower()
    program = cache() / "go" / version / name
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source, unfinished = Path(folder, "source"), Path(folder, name)
        downloaded = run(Path(folder), "go", "mod", "download", "-json", f"{module}@{version}")
        # The folder of downloads is read-only, and so is a copy of it.
        copy = ["cp", "-r", "--no-preserve=mode", json.loads(downloaded)["Dir"], str(source)]
        run(Path(folder), *copy)
        for path, text in (files or {}).items():
            (source / path).write_text(text)
        run(source, "nice", "go", "build", "-o", str(unfinished), f"./cmd/{name}")
        shutil.move(unfinished, program)
    return program
