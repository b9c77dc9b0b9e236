"""`.env`: `make dev` reads it once, as it is written, and its processes do not read it again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from market_data_pipeline.settings import SettingError
from market_data_pipeline_dev.settings import read_settings
from market_data_pipeline_tests.supervised import ROOT, Supervisor, settings, wait_until

EXAMPLE = re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
# Each run writes the settings that it has into a file, and the next run follows.
PROBE = f"""
import json, os, pathlib
import dagster as dg
NAMES = {EXAMPLE!r}

@dg.asset
def probe(context):
    found = {{name: os.environ[name] for name in NAMES if name in os.environ}}
    draft = pathlib.Path("draft")
    draft.write_text(json.dumps(found))
    draft.replace(f"run-{{len(list(pathlib.Path().glob('run-*')))}}.json")

job = dg.define_asset_job("job", selection=["probe"])

@dg.sensor(job=job, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=1)
def again(context):
    return dg.RunRequest(run_key=str(len(list(pathlib.Path().glob("run-*")))))

defs = dg.Definitions([probe], jobs=[job], sensors=[again], executor=dg.in_process_executor)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to run `make dev` in, with a `.env` that has a blank line for every setting."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(ROOT / "dagster.yaml", folder)
    (folder / "workspace.yaml").write_text("load_from: [python_file: definitions.py]\n")
    (folder / "definitions.py").write_text(PROBE)
    (folder / ".env").write_text("".join(f"{name}=\n" for name in EXAMPLE))
    return folder


def test_blank_and_later_lines_leave_the_stand_ins_of_make_dev_alone(
    folder: Path, tmp_path: Path
) -> None:
    env = settings(tmp_path / "state") | {"KAFKA_TOPIC": "of-the-shell", "BRAPI_PLAN": ""}
    supervisor = Supervisor(folder, env)
    state = tmp_path / "state" / "sandbox"

    def settings_of_run(number: int) -> dict[str, str]:
        file = state / f"run-{number}.json"
        wait_until(file.exists, str(file))
        found = json.loads(file.read_text())
        assert isinstance(found, dict)
        return {name: value for name, value in found.items() if value}

    try:
        found = settings_of_run(0)
        stand_ins = json.loads((state / "stand-ins.json").read_text())
        expected = {name: env[name] for name in EXAMPLE if env.get(name)} | {
            "BRAPI_BASE_URL": f"http://127.0.0.1:{env['SANDBOX_PORT']}",
            "BRAPI_TOKEN": "sandbox",
            "KAFKA_BOOTSTRAP_SERVERS": stand_ins["KAFKA_BOOTSTRAP_SERVERS"],
            "KAFKA_UPDATED_AT_FORMAT": "epoch",
            "MONGO_URI": f"mongodb://127.0.0.1:{env['EMBEDDED_MONGO_PORT']}",
            "PUBLISH_MADE_UP_PRICES": "true",
        }
        assert found == expected
        # A real service that is named while made-up prices are on their way is not written to.
        (folder / ".env").write_text("MONGO_URI=mongodb://db.example/\nKAFKA_TOPIC=\nMONGO_DB=x\n")
        assert settings_of_run(len(list(state.glob("run-*.json"))) + 1) == expected
    finally:
        assert supervisor.end(signal.SIGTERM) == 0


def test_a_line_counts_more_than_the_shell_and_a_blank_one_less(here: Path) -> None:
    (here / ".env").write_text(
        "BRAPI_TOKEN=\nMONGO_DB= \nMONGO_HOST\nKAFKA_TOPIC=file\n"
        "watchlist_file=lists/mine.csv\nQUOTES_PATH=s3://bucket/quotes\n"
        "KAFKA_CONFIG_SSL_CA_LOCATION=ca.pem\n"
    )
    os.environ |= {"BRAPI_TOKEN": "shell", "KAFKA_TOPIC": "shell", "MONGO_HOST": "shell"}
    os.environ["BRAPI_PLAN"] = " "

    given = read_settings()

    assert given.model_fields_set == {
        "brapi_token", "mongo_host", "kafka_topic", "watchlist_file", "quotes_path"
    }  # fmt: skip
    assert (given.brapi_token.get_secret_value(), given.mongo_host) == ("shell", "shell")
    assert (given.kafka_topic, given.brapi_plan) == ("file", "free")
    # Dagster's processes have another working directory.
    assert given.watchlist_file == str(here / "lists" / "mine.csv")
    assert os.environ["KAFKA_CONFIG_SSL_CA_LOCATION"] == str(here / "ca.pem")
    assert given.quotes_path == "s3://bucket/quotes"


@pytest.mark.parametrize("quote", ["'", ""])
@pytest.mark.parametrize("password", ["pa$word", "pa${HOME}word", "pa$$word"])
def test_a_dollar_sign_is_one(quote: str, password: str, here: Path) -> None:
    """In single quotes compose reads it in the same way."""
    (here / ".env").write_text(f"KAFKA_CONFIG_SASL_PASSWORD={quote}{password}{quote}\n")

    properties = read_settings().kafka_client_properties

    assert properties["sasl.password"].get_secret_value() == password


@pytest.mark.parametrize("line", ["BRAPI_TOKEN=canção\n".encode("latin-1"), b"BRAPI_TOKEN=a\0b\n"])
def test_a_file_that_is_no_text_is_one_sentence(line: bytes, here: Path) -> None:
    (here / ".env").write_bytes(line)

    with pytest.raises(
        SettingError, match=r"^\.env cannot be read: save it as a text file in UTF-8"
    ):
        read_settings()
