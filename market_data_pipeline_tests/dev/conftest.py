"""Where the programs of `make dev` run."""

import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of the test, whose `.env` may be read into its environment."""
    monkeypatch.chdir(tmp_path)
    with patch.dict(os.environ):
        yield tmp_path
