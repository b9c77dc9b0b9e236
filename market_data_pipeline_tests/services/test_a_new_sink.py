"""The sink of docs/adding-a-sink.md, added as the page says, writes to a real PostgreSQL."""

import re
import shutil
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine, text

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, ChangeSettings, Pipeline
from market_data_pipeline_tests.services.postgres import Postgres
from market_data_pipeline_tests.supervised import ROOT

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("four_instruments")]


def add_the_sink(package: Path) -> None:
    page = (ROOT / "docs" / "adding-a-sink.md").read_text("utf-8")
    (module,), (changes,) = (
        re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL) for language in ("python", "diff")
    )
    folder, definitions = package / "warehouse", package / "definitions.py"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "asset.py").write_text(module)
    for change in changes.split("@@\n"):
        lines = change.splitlines(keepends=True)
        before, after = (
            "".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +")
        )
        there = definitions.read_text()
        assert there.count(before) == 1
        definitions.write_text(there.replace(before, after))


def test_the_sink_of_the_page_stores_a_window_in_postgresql(
    pipeline: Pipeline,
    postgres: Postgres,
    change_settings: ChangeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_the_sink(shutil.copytree(ROOT / "market_data_pipeline", tmp_path / "market_data_pipeline"))
    monkeypatch.syspath_prepend(tmp_path)
    change_settings(WAREHOUSE_URL=postgres.url)

    assert pipeline.run(LIVE_ON_TUESDAY).success
    assert pipeline.run(LIVE_ON_TUESDAY, select="warehouse").success

    with create_engine(postgres.url).connect() as connection:
        rows = connection.execute(text("SELECT ticker, window_start, rank FROM prices")).all()
    documents = pipeline.documents()
    assert len(rows) == len(documents) == 4
    assert {*rows} == {(each["ticker"], each["window_start"], each["rank"]) for each in documents}

    from market_data_pipeline.definitions import defs  # the copy, with the sink

    checks = defs.resolve_asset_graph().asset_check_keys
    assert dg.AssetCheckKey(dg.AssetKey("warehouse"), "fresh") in checks
