"""A stored file that cannot be read costs nothing but its own prices, and is named."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_data_pipeline.market.quote import COLUMNS
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline
from market_data_pipeline_tests.observed import checks, failure_of, logs
from market_data_pipeline_tests.record.helpers import SECOND, Later, prices, row, times

Rows = list[dict[str, Any]]
Damage = Callable[[bytes, Rows], bytes]

pytestmark = pytest.mark.usefixtures("four_instruments")


def parquet(rows: Rows) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def only(*names: str) -> Damage:
    """A file with these columns alone."""
    return lambda _, rows: parquet([{name: each[name] for name in names} for each in rows])


def last(name: str, value: Any) -> Damage:
    """A file whose last row has another value."""
    return lambda _, rows: parquet([*rows[:-1], {**rows[-1], name: value}])


def each(name: str, change: Callable[[Any], Any]) -> Damage:
    """A file in which every row has another value."""
    return lambda _, rows: parquet([{**row, name: change(row[name])} for row in rows])


def cut(content: bytes, _: Rows) -> bytes:
    return content[: len(content) // 2]


def another_price(content: bytes, rows: Rows) -> bytes:
    """A file in which the bytes of a number are those of another."""
    there, other = (struct.pack("<d", price) for price in (rows[0]["price"], 1.0))
    assert there in content
    return content.replace(there, other)


# What becomes of a file, and what is said of it.
DAMAGES: list[tuple[Damage, str]] = [
    (lambda *_: b"", "Parquet file size is 0 bytes"),
    (cut, "Parquet magic bytes not found"),
    (lambda *_: b"<html>503 Service Unavailable</html>", "Parquet magic bytes not found"),
    (another_price, "could not verify page integrity, CRC checksum verification failed"),
    (lambda *_: parquet([{"a": 1}]), "it has no column ticker"),
    (lambda *_: parquet([]), "it has no column ticker"),
    (only("ticker", "price"), "it has no column name"),
    (last("price", float("nan")), "row 4: price should be a finite number"),
    (last("previous_close", float("inf")), "row 4: previous_close should be a finite number"),
    (last("price", 0.0), "row 4: price should be greater than 0"),
    (last("price", None), "row 4: price should be a valid number"),
    (last("reference_price", -1.0), "row 4: reference_price should be greater than 0"),
    (each("price", str), "row 1: price should be a valid number"),
    (each("ticker", len), "row 1: ticker should be a valid string"),
    (last("ticker", ""), "row 4: ticker should have at least 1 character"),
    (each("updated_at", lambda it: it.replace(tzinfo=None)), "row 1: updated_at should have tim"),
    (last("observed_at", None), "row 4: observed_at should be a valid datetime"),
    (last("source", "rumour"), "row 4: source should be 'live', 'intraday' or 'daily'"),
    (last("decision", "later"), "row 4: decision should be 'clear', 'withheld' or 'accepted'"),
    (each("window_start", lambda it: it - timedelta(minutes=30)), "row 1 is of another window"),
    (each("window_end", lambda it: it + timedelta(days=1)), "row 1 is of another window"),
]


def path_of(pipeline: Pipeline, key: str) -> Path:
    return Path(str(pipeline.store.folder / f"{key}.parquet"))


def damage(pipeline: Pipeline, key: str, how: Damage = cut) -> bytes:
    """What the file of a window holds from now on."""
    path = path_of(pipeline, key)
    path.write_bytes(how(path.read_bytes(), pq.read_table(path).to_pylist()))
    return path.read_bytes()


def test_damaged_files_of_earlier_windows_are_named_and_the_price_before_them_is_compared_with(
    stored: Pipeline,
) -> None:
    days = date(2026, 11, 16), date(2026, 11, 17)
    windows = [each for day in days for each in WINDOWS.of_session(day)]
    before, *earlier = [each for each in windows if each.key < SECOND][-len(DAMAGES) - 1 :]
    rows = stored.store.load([LIVE_ON_TUESDAY])
    for window in (before, *earlier):
        of_window = [
            replace(quote, window_start=window.start, window_end=window.end) for quote in rows
        ]
        stored.store.save(of_window, [window.key])
    for window, (how, _) in zip(earlier, DAMAGES, strict=True):
        damage(stored, window.key, how)
    for name in (f"{LIVE_ON_TUESDAY} (copy)", LIVE_ON_TUESDAY.replace(":", "_")):
        path_of(stored, name).write_bytes(b"")
    asked = len(stored.sandbox.requests)
    stored.sandbox.faults = [times(stored, 10)]

    result = stored.run(SECOND)

    assert result.success
    assert len(stored.sandbox.requests) == asked + 4
    assert len(stored.store.load([SECOND])) == 4
    assert row(stored, SECOND).reference_price == row(stored, before.key).price
    assert len(prices(stored)) == 1
    passed, why = checks(result)["files_readable"]
    assert not passed
    newest = path_of(stored, LIVE_ON_TUESDAY)
    assert why.startswith(f"{len(DAMAGES)} files cannot be read: {newest} (row 1 is of another ")
    assert "This run replaces 0 of them" in why
    [table] = [
        each.metadata["damaged"]
        for each in result.get_asset_check_evaluations()
        if "damaged" in each.metadata
    ]
    assert isinstance(table, dg.TableMetadataValue)
    named = {each.data["window"]: str(each.data["reason"]) for each in table.records}
    for window, (_, reason) in zip(earlier, DAMAGES, strict=True):
        assert reason in named[window.key]
    assert len(named) == len(DAMAGES)


def test_a_damaged_file_of_the_window_itself_is_kept_beside_the_new_one(
    stored: Pipeline, later: Later
) -> None:
    later(0.5)
    content = damage(stored, LIVE_ON_TUESDAY)

    result = stored.run(LIVE_ON_TUESDAY)

    assert result.success
    assert len(prices(stored)) == 2
    passed, why = checks(result)["files_readable"]
    assert not passed
    assert "This run replaces 1 of them and keeps them as `_….damaged`." in why
    folder = path_of(stored, LIVE_ON_TUESDAY).parent
    [aside] = folder.glob("_*.damaged")
    assert aside.read_bytes() == content
    assert f"{LIVE_ON_TUESDAY}.parquet is damaged: it is kept as {aside.name}." in logs(
        stored, result
    )
    assert len(pd.read_parquet(folder)) == 4
    later(1)
    assert checks(stored.run(SECOND))["files_readable"][0]


def test_a_disk_that_cannot_be_read_damages_no_file(
    stored: Pipeline, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    later(0.5)
    path, rows = path_of(stored, LIVE_ON_TUESDAY), stored.store.load([LIVE_ON_TUESDAY])

    def failing(*_: object, **__: object) -> list[Exception]:
        return [OSError(errno.EIO, "Input/output error")]

    with monkeypatch.context() as patch:
        patch.setattr(type(stored.store.folder.fs), "cat_ranges", failing)
        assert "cannot be read: Input/output error" in failure_of(stored.run(LIVE_ON_TUESDAY))

    assert [*path.parent.glob("_*")] == []
    assert stored.store.load([LIVE_ON_TUESDAY]) == rows


def test_a_folder_in_place_of_a_file_is_kept_beside_the_new_one(stored: Pipeline) -> None:
    path_of(stored, SECOND).mkdir()

    assert stored.run(SECOND).success
    assert len(stored.store.load([SECOND])) == 4
    assert [*path_of(stored, SECOND).parent.glob("_*.damaged")]


@pytest.mark.parametrize("sink", ["mongo_price_history", "kafka_publication"])
def test_a_sink_says_which_file_is_missing_or_damaged(stored: Pipeline, sink: str) -> None:
    why = failure_of(stored.run(SECOND, select=sink), sink)
    assert why.startswith(f"There are no stored quotes for {SECOND} in ")

    damage(stored, LIVE_ON_TUESDAY)
    why = failure_of(stored.run(LIVE_ON_TUESDAY, select=sink), sink)
    assert why.startswith(f"{path_of(stored, LIVE_ON_TUESDAY)} is damaged (Parquet magic bytes")
    assert "restore it, or materialize `quotes` for its window again" in why


def test_files_of_older_versions_have_fewer_columns(stored: Pipeline) -> None:
    newer = {"bar_volume", "previous_close", "origin", "reference_price", "decision"}
    oldest = [name for name in COLUMNS if name not in newer]
    older = [
        replace(quote, previous_close=None, origin=None, reference_price=None)
        for quote in stored.store.load([LIVE_ON_TUESDAY])
    ]
    damage(stored, LIVE_ON_TUESDAY, only(*oldest))

    assert stored.store.load([LIVE_ON_TUESDAY]) == older
    assert checks(stored.run(SECOND))["files_readable"] == (True, "Every file is readable.")
    assert len(pd.read_parquet(path_of(stored, SECOND).parent)) == 8


def test_a_row_that_is_there_twice_is_one_price(stored: Pipeline, later: Later) -> None:
    later(0.5)
    price, sent = row(stored, LIVE_ON_TUESDAY, "PETR4").price, len(stored.events())
    earlier = {"observed_at": TUESDAY_15_00 - timedelta(minutes=1), "price": price * 1.1}
    damage(stored, LIVE_ON_TUESDAY, lambda _, rows: parquet([*rows, rows[0] | earlier, *rows]))

    for sink in ("mongo_price_history", "kafka_publication"):
        assert stored.run(LIVE_ON_TUESDAY, select=sink).success

    assert [each["price"] for each in stored.documents({"ticker": "PETR4"})] == [price]
    assert len(stored.events()) == sent + 4
    assert prices(stored, "PETR4")[-1] == price
