"""A folder that cannot hold a window costs no request, and nothing stays in it."""

import os
import re
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
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


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("/sys/kernel", "(Permission denied|Read-only file system)"),  # not even root may write
        ("a-file", "Not a directory"),
        ("a-link", "No such file or directory"),  # to a disk that is not mounted
        ("full", "File too large"),
    ],
)
def test_it_is_one_sentence_before_the_first_request(
    pipeline: Pipeline, tmp_path: Path, folder: str, why: str
) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "a-link").symlink_to(tmp_path / "not-mounted" / "quotes")
    pipeline.folder = tmp_path / folder
    with largest_file(20_000) if folder == "full" else nullcontext():
        result = pipeline.run(LIVE_ON_TUESDAY)

    assert re.fullmatch(
        rf"The stored quotes in {pipeline.store.folder} cannot be (read|written): {why}\. Check "
        r"QUOTES_PATH \(its space, permissions and credentials\), then materialize the window "
        r"again\.",
        failure_of(result),
    )
    assert pipeline.sandbox.requests == []
    assert {path.name for path in files(tmp_path)} == {"a-file", "watchlist.csv"}
    assert folder != "full" or pipeline.run(LIVE_ON_TUESDAY).success


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
