"""A folder that cannot hold a window costs no request, and nothing stays in it."""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pytest

from market_data_pipeline.market import clock
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline
from market_data_pipeline_tests.observed import failure_of

pytestmark = pytest.mark.usefixtures("four_instruments")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may be larger, as on a disk with so little room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(pipeline: Pipeline) -> Iterator[None]:
    """A folder that no user may write to, not even root."""
    there, pipeline.folder = pipeline.folder, Path("/sys/kernel")
    yield
    pipeline.folder = there


@contextmanager
def a_file(pipeline: Pipeline) -> Iterator[None]:
    pipeline.folder.touch()
    yield
    pipeline.folder.unlink()


@contextmanager
def a_link_to_a_disk_that_is_not_mounted(pipeline: Pipeline) -> Iterator[None]:
    pipeline.folder.symlink_to(pipeline.folder.parent / "not-mounted" / "quotes")
    yield
    pipeline.folder.unlink()


@contextmanager
def a_full_disk(_: Pipeline) -> Iterator[None]:
    with largest_file(20_000):
        yield


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("spoiled", "why"),
    [
        (read_only, "(Permission denied|Read-only file system)"),
        (a_file, "Not a directory"),
        (a_link_to_a_disk_that_is_not_mounted, "No such file or directory"),
        (a_full_disk, "File too large"),
    ],
)
def test_it_is_one_sentence_before_the_first_request(
    pipeline: Pipeline, spoiled: Callable[[Pipeline], AbstractContextManager[None]], why: str
) -> None:
    with spoiled(pipeline):
        result = pipeline.run(LIVE_ON_TUESDAY)

        assert re.fullmatch(
            rf"The stored quotes in {pipeline.store.folder} cannot be written: {why}\. Check "
            r"QUOTES_PATH \(its space, permissions and credentials\), then materialize the window "
            r"again\.",
            failure_of(result),
        )
        assert pipeline.sandbox.requests == []
    assert files(pipeline.folder) == []
    assert pipeline.run(LIVE_ON_TUESDAY).success


def test_a_disk_that_becomes_full_while_brapi_is_asked_keeps_no_half_file(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as full, monkeypatch.context() as patch:

        def now() -> datetime:
            if pipeline.sandbox.requests:
                full.enter_context(largest_file(2_000))
            return TUESDAY_15_00

        patch.setattr(clock, "utc_now", now)
        result = pipeline.run(LIVE_ON_TUESDAY)

    assert "cannot be written: File too large. " in failure_of(result)
    assert files(pipeline.folder) == []
    assert pipeline.run(LIVE_ON_TUESDAY).success


def test_what_a_killed_run_left_is_removed(pipeline: Pipeline) -> None:
    folder = Path(str(pipeline.store.folder))
    folder.mkdir(parents=True)
    left, just_now = (folder / f".{LIVE_ON_TUESDAY}.parquet.{uuid4().hex}" for _ in range(2))
    left.touch()
    just_now.touch()
    os.utime(left, (time.time() - 7200,) * 2)

    assert pipeline.run(LIVE_ON_TUESDAY).success

    assert {*files(folder)} == {folder / f"{LIVE_ON_TUESDAY}.parquet", just_now}
