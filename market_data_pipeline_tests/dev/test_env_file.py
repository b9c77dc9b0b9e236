"""`.env` as it is read: `test_end_to_end.py` has the processes, which do not read it again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from market_data_pipeline.settings import SettingError
from market_data_pipeline_dev.settings import read_settings


def test_a_line_counts_more_than_the_shell_and_a_blank_one_less(here: Path) -> None:
    (here / ".env").write_text(
        "BRAPI_TOKEN=\nMONGO_DB= \nMONGO_HOST\nKAFKA_TOPIC=file\n"
        "watchlist_file=lists/mine.csv\nQUOTES_PATH=s3://bucket/quotes\n"
        "KAFKA_CONFIG_SSL_CA_LOCATION=ca.pem\nB3_CA_BUNDLE=b3.pem\n"
    )
    os.environ |= {"BRAPI_TOKEN": "shell", "KAFKA_TOPIC": "shell", "MONGO_HOST": "shell"}
    os.environ["BRAPI_PLAN"] = " "

    given = read_settings()

    assert given.model_fields_set == {
        "brapi_token", "mongo_host", "kafka_topic", "watchlist_file", "quotes_path",
        "b3_ca_bundle",
    }  # fmt: skip
    assert (given.brapi_token.get_secret_value(), given.mongo_host) == ("shell", "shell")
    assert (given.kafka_topic, given.brapi_plan) == ("file", "free")
    # Dagster's processes have another working directory.
    assert given.watchlist_file == str(here / "lists" / "mine.csv")
    assert os.environ["KAFKA_CONFIG_SSL_CA_LOCATION"] == str(here / "ca.pem")
    assert given.b3_ca_bundle == str(here / "b3.pem")
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
