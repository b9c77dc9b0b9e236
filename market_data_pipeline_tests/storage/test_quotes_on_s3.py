"""The quotes between the steps on object storage: a real S3 server, and what it is asked."""

import logging
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
from upath import UPath

from market_data_pipeline.market.b3_calendar import sessions_back
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import Window
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline, SetClock
from market_data_pipeline_tests.observed import checks, failure_of, left_by_runs
from market_data_pipeline_tests.storage.object_storage import SECRET_KEY, ObjectStorage

pytestmark = pytest.mark.services

LATER = "2026-11-17T15:00-0300"


@pytest.fixture
def bucket(storage: ObjectStorage) -> str:
    """An empty one."""
    name = f"quotes-{uuid4().hex[:8]}"
    storage.make_bucket(name)
    storage.counted()
    return name


@pytest.fixture
def pipeline(pro: Pipeline, bucket: str, instance_in_files: dg.DagsterInstance) -> Pipeline:
    pro.folder = UPath(f"s3://{bucket}/prod")  # type: ignore[assignment]
    pro.instance = instance_in_files
    return pro


def key(window: str) -> str:
    """The object of a window."""
    return f"prod/quotes/{window}.parquet"


def at(quote: Quote, window: Window) -> Quote:
    """The same price in another window."""
    return replace(quote, window_start=window.start, window_end=window.end, observed_at=window.end)


def test_a_live_window_costs_few_requests_and_runs_again(
    pipeline: Pipeline, storage: ObjectStorage, bucket: str, set_clock: SetClock
) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    set_clock(TUESDAY_15_00 + timedelta(minutes=30))
    storage.counted()

    assert pipeline.run(LATER).success

    # What is there, what to merge with, the audit, the publication, before and in its turn, and the
    # checks; the one earlier window, and one look for more; whether it can be written, and the
    # window.
    assert storage.counted() == Counter(
        GetObject=6 + 1, ListObjectsV2=1, PutObject=2, DeleteObject=1
    )
    assert len(pipeline.events()) == 100
    before = storage.objects(bucket)
    assert before.keys() == {key(LIVE_ON_TUESDAY), key(LATER)}

    assert pipeline.run(LATER).success

    assert storage.objects(bucket).keys() == before.keys()
    assert len(pipeline.documents()) == 100
    asked = len(pipeline.sandbox.requests)
    for sink in ("mongo_price_history", "kafka_publication"):
        assert pipeline.run(LATER, select=sink).success
    assert len(pipeline.sandbox.requests) == asked


def test_a_range_is_one_object_a_window(
    pipeline: Pipeline, storage: ObjectStorage, bucket: str
) -> None:
    assert pipeline.run("2026-11-16T10:00-0300", LIVE_ON_TUESDAY).success

    windows = 16 + 10
    assert len(storage.objects(bucket)) == windows
    assert storage.counted() == Counter(
        GetObject=1 + 5 * windows, ListObjectsV2=4, PutObject=1 + windows, DeleteObject=1
    )
    assert {document["source"] for document in pipeline.documents()} == {"live", "intraday"}


def test_the_reference_prices_are_one_object_mostly_and_many_at_once_at_the_worst(
    pipeline: Pipeline, storage: ObjectStorage
) -> None:
    today = WINDOWS.from_key(LIVE_ON_TUESDAY)
    oldest, *days = [sessions_back(today.day, back) for back in range(60, 0, -1)]
    assert pipeline.run(LIVE_ON_TUESDAY, select="quotes").success
    unseen, *seen = pipeline.store.load([LIVE_ON_TUESDAY])[:3]
    first, *others = [window for day in [oldest, *days] for window in WINDOWS.of_session(day)]
    rows = [at(quote, window) for window in [first, *others] for quote in seen]
    keys = [window.key for window in [first, *others]]
    pipeline.store.save([at(unseen, first), *rows], keys)
    (pipeline.store.folder / f"{LIVE_ON_TUESDAY}.parquet").unlink()  # as before its first run
    storage.counted()

    def look_up(*quotes: Quote) -> dict[str, Quote]:
        return pipeline.store.reading().last_trusted(quotes, today, oldest)

    assert len(look_up(*seen)) == 2
    assert storage.counted() == {"GetObject": 1, "ListObjectsV2": 1}
    assert look_up(unseen)[unseen.ticker].window_start == first.start
    assert storage.counted() == {"GetObject": len(keys), "ListObjectsV2": 4}  # August to November


def test_a_window_that_another_process_has_just_written_is_seen(
    pipeline: Pipeline, bucket: str
) -> None:
    later = WINDOWS.from_key(LATER)
    assert pipeline.run("2026-11-17T14:00-0300", select="quotes").success
    assert len(pipeline.store.reading().sessions(later.day, later.day)) == 1

    write = (
        "from market_data_pipeline.storage.quote_store import QuoteStore;"
        f"QuoteStore(path='s3://{bucket}/prod').save([], ['{LIVE_ON_TUESDAY}'])"
    )
    subprocess.run([sys.executable, "-c", write], check=True)

    assert pipeline.store.load([LIVE_ON_TUESDAY]) == []
    assert len(pipeline.store.reading().sessions(later.day, later.day)) == 2


@pytest.mark.parametrize("content", [b"", b"no Parquet"])
def test_a_damaged_object_is_named_and_stops_no_run(
    pipeline: Pipeline,
    storage: ObjectStorage,
    bucket: str,
    set_clock: SetClock,
    content: bytes,
) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    damaged = pipeline.store.folder / f"{LIVE_ON_TUESDAY}.parquet"
    damaged.write_bytes(content)

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert result.success
    assert f"1 files cannot be read: {damaged} (" in checks(result)["files_readable"][1]
    sizes = storage.objects(bucket)
    (aside,) = sizes.keys() - {key(LIVE_ON_TUESDAY)}
    assert re.fullmatch(rf"prod/quotes/_{LIVE_ON_TUESDAY}\.parquet\.\w+\.damaged", aside)
    assert sizes[aside] == len(content) < sizes[key(LIVE_ON_TUESDAY)]
    damaged.write_bytes(content)
    set_clock(TUESDAY_15_00 + timedelta(minutes=30))
    assert not checks(pipeline.run(LATER))["files_readable"][0]
    assert len(pipeline.documents()) == 100


@pytest.mark.parametrize(
    ("variables", "bucket_name", "done", "why"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "another"}, "", "read", "signature"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "", "read", "access key id"),
        ({}, "no-such-bucket", "read", "bucket does not exist"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "", "read", "could not connect"),
        ({}, "", "written", "object parent already exists as a file"),
    ],
    ids=["wrong secret", "unknown key", "missing bucket", "no server", "refused"],
)
def test_a_store_that_cannot_be_used_is_one_sentence_and_costs_no_request(
    pipeline: Pipeline,
    storage: ObjectStorage,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    bucket_name: str,
    done: str,
    why: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if done == "written":
        (storage.buckets / bucket / "prod").touch()
    if bucket_name:
        pipeline.folder = UPath(f"s3://{bucket_name}/prod")  # type: ignore[assignment]

    said = failure_of(pipeline.run(LIVE_ON_TUESDAY))

    assert said.startswith(f"The stored quotes in {pipeline.folder}/quotes cannot be {done}: ")
    assert why in said.lower()
    assert "Check QUOTES_PATH" in said
    assert pipeline.sandbox.requests == []
    assert done == "written" or storage.counted().keys() <= {"GetObject"}


def test_the_secret_is_nowhere(
    pipeline: Pipeline,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logging.getLogger("botocore").setLevel(logging.INFO)
    assert pipeline.run(LIVE_ON_TUESDAY).success
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    assert not pipeline.run(LIVE_ON_TUESDAY).success

    left = left_by_runs(pipeline.instance, tmp_path, "".join(capfd.readouterr()))
    assert any(name.endswith("dagster.log") for name in left)
    assert not [name for name, content in left.items() if SECRET_KEY.encode() in content]
