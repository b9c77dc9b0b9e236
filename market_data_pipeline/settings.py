"""Every setting: an environment variable, its type, its default and what it is for.

python -m market_data_pipeline.settings    # the table of docs/configuration.md
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

import dagster as dg
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

NO_SECRET = SecretStr("")


def _setting(
    default: Any, text: str, expected: str = "", *, shown: str | None = None, **bounds: Any
) -> Any:
    """A setting: its default, what it is for, and what a value has to be, for an error.

    `shown` is the default in words, where the value says little.
    """
    extra: dict[str, Any] = {"shown": shown, "expected": expected}
    return Field(default, description=text, json_schema_extra=extra, **bounds)


def _true_or_false(value: object) -> object:
    return {"true": True, "false": False}.get(str(value).lower(), value)


Flag = Annotated[bool, BeforeValidator(_true_or_false)]
# pydantic itself takes a number for a date.
Day = Annotated[date, BeforeValidator(lambda value: date.fromisoformat(str(value)))]

LONGEST = 86_400  # seconds
SECONDS = f"a number such as 0.5, {LONGEST} at the most"
SHARE = "a number from 0 to 1 such as 0.5"
WHOLE, PORT = "a whole number such as 30", "a port such as 3000"
FLAG = "true or false"


class Settings(BaseModel):
    """The settings of a deployment. The names are those of the variables, in lower case."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    brapi_token: SecretStr = _setting(
        NO_SECRET, "API token; without it, runs fail with a message", shown=""
    )
    brapi_plan: Literal["free", "startup", "pro"] = _setting(
        "free", "plan of the token: `free`, `startup` or `pro`"
    )
    brapi_base_url: str = _setting("https://brapi.dev", "address of the API")
    brapi_tickers_per_request: int = _setting(
        0,
        "tickers in one request, if different from the plan's",
        WHOLE,
        shown="by plan",
        ge=0,
    )
    brapi_intraday: Flag | None = _setting(
        None, "`true` if intraday bars may be requested", FLAG, shown="by plan"
    )
    brapi_longest_range: Literal[
        "", "1d", "5d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "max"
    ] = _setting("", "how far back history may be requested, such as `3mo`", shown="by plan")
    brapi_min_interval_seconds: float = _setting(
        0.5, "seconds between the starts of two requests", SECONDS, ge=0, le=LONGEST
    )
    brapi_timeout_seconds: float = _setting(
        10.0, "seconds for one request", SECONDS, gt=0, le=LONGEST
    )
    brapi_step_timeout_seconds: float = _setting(
        240.0, "seconds for all requests of a run", SECONDS, gt=0, le=LONGEST
    )
    brapi_quota_share: float = _setting(
        1.0,
        "share of the token's quota (0 to 1) that this code location may spend",
        SHARE,
        ge=0,
        le=1,
    )
    b3_history_url: str = _setting(
        "https://bvmf.bmfbovespa.com.br/InstDados/SerHist",
        "folder of B3's files of official prices (`COTAHIST_…ZIP`)",
    )
    b3_ca_bundle: str = _setting(
        "",
        "file with the certificates to verify B3 by, if its own chain is incomplete",
        shown="those of `certifi`",
    )
    mongo_uri: SecretStr = _setting(
        NO_SECRET,
        "connection string, with credentials if needed; replaces `MONGO_HOST` and `MONGO_PORT`",
        shown="",
    )
    mongo_host: str = _setting("localhost", "server")
    mongo_port: int = _setting(27017, "its port", PORT, ge=1, le=65535)
    mongo_db: str = _setting("market_data_db", "database")
    kafka_bootstrap_servers: str = _setting(
        "localhost:9092", "brokers, as comma-separated `host:port`"
    )
    kafka_topic: str = _setting("trading-assets-market-data-v1", "topic; created if missing")
    kafka_updated_at_format: Literal["", "epoch", "iso8601"] = _setting(
        "",
        "form of `updated_at`: `epoch` (Unix seconds) or `iso8601`; `java.time.Instant` reads "
        "both, `LocalDateTime` the second",
        shown="`epoch`, with a warning",
    )
    kafka_transactions: Flag = _setting(
        True,
        "`false` for clusters that forbid transactions: a window may then appear in part",
        FLAG,
    )
    kafka_transactional_id: str = _setting(
        "",
        "identity of the publication; unique to this code location",
        shown="`market-data-pipeline`, then the prefix",
    )
    kafka_timeout_seconds: float = _setting(
        60.0, "seconds for publishing a window", SECONDS, gt=0, le=LONGEST
    )
    kafka_create_topic: Flag = _setting(True, "whether a missing topic is created", FLAG)
    kafka_topic_partitions: int = _setting(4, "partitions of a topic created here", WHOLE, ge=1)
    kafka_topic_replication_factor: int = _setting(
        -1, "replicas of a topic created here", WHOLE, shown="the broker's"
    )
    watchlist_file: str = _setting(
        "", "the tickers, one a line, or a spreadsheet saved as CSV", shown="the 50 instruments"
    )
    sync_interval_minutes: int = _setting(
        30, "length of a window: 5, 10, 15, 20, 30 or 60", WHOLE, gt=0
    )
    partitions_start: Day = _setting(
        date(2026, 1, 2),
        "first day with windows; Dagster's percentages count all windows since then",
        "a date such as 2026-01-02",
    )
    quotes_path: str = _setting(
        "",
        "folder or fsspec address of the Parquet files of quotes",
        shown="the instance's storage folder",
    )
    asset_key_prefix: str = _setting(
        "",
        "prefix of the asset keys, if an instance has several code locations",
        "letters, digits and underscores, such as funds",
        pattern=r"^[A-Za-z0-9_]*$",
        shown="",
    )
    publish_made_up_prices: Flag = _setting(
        False,
        "`true` lets the made-up prices of a sandbox reach the database and the topic",
        FLAG,
    )
    alert_webhook_url: SecretStr = _setting(
        NO_SECRET,
        "incoming webhook in Slack's format: a message when an incident begins and when it ends",
        shown="",
    )
    dagster_url: str = _setting("", "address of the UI, for the links in those messages", shown="")
    dagster_port: int = _setting(3000, "`make dev`: port of the UI", PORT, ge=1, le=65535)
    sandbox_port: int = _setting(8790, "`make dev`: port of the sandbox", PORT, ge=1, le=65535)
    embedded_mongo_port: int = _setting(
        27117, "`make dev`: port of the embedded MongoDB", PORT, ge=1, le=65535
    )
    market_data_home: str = _setting(".dev", "`make dev`: folder of its state")

    @property
    def transactional_id(self) -> str:
        """The identity of the publication; empty if transactions are turned off."""
        named = "-".join(filter(None, ["market-data-pipeline", self.asset_key_prefix]))
        return (self.kafka_transactional_id or named) if self.kafka_transactions else ""


def names() -> tuple[str, ...]:
    """The variables of all settings; `KAFKA_CONFIG_…` are librdkafka's."""
    return tuple(name.upper() for name in Settings.model_fields)


def settings_of(environ: Mapping[str, str]) -> Settings:
    """The settings that some variables ask for; a blank one counts as not set.

    Raises:
        ValueError: a value is not what it must be; the text names the variable and what to set.
    """
    given = {name: environ.get(name.upper(), "").strip() for name in Settings.model_fields}
    try:
        return Settings.model_validate({name: value for name, value in given.items() if value})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
    value = given[name]
    raise ValueError(f"{name.upper()} is {value!r}: set it to {_expected(name)}.")


@cache
def settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        ValueError: a value is not what it must be.
    """
    return settings_of(os.environ)


def secret(name: str, value: SecretStr) -> str:
    """A secret for a resource: Dagster shows the variable's name, never its value.

    One that is not set is empty here: a missing EnvVar would fail a launch before there is a run
    that could say so.
    """
    return dg.EnvVar(name) if value.get_secret_value() else ""


def table() -> str:
    """All settings as a table in Markdown."""
    lines = ["| variable | default | |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = str(field.default).lower() if field.annotation is bool else field.default
        shown = _extra(name, "shown")
        shown = f"`{default}`" if shown is None else shown
        lines.append(f"| `{name.upper()}` | {shown} | {field.description} |")
    lines.append(
        "| `KAFKA_CONFIG_…` | | any other librdkafka property: "
        "`KAFKA_CONFIG_SECURITY_PROTOCOL=SASL_SSL` |"
    )
    return "\n".join(lines) + "\n"


def _allowed(name: str) -> tuple[Any, ...]:
    """What a setting may be, where that is a list."""
    annotation = Settings.model_fields[name].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _extra(name: str, key: str) -> Any:
    extra = Settings.model_fields[name].json_schema_extra
    return extra.get(key) if isinstance(extra, dict) else None


def _expected(name: str) -> str:
    allowed = ", ".join(str(each) for each in _allowed(name) if each != "")
    return f"one of {allowed}" if allowed else str(_extra(name, "expected"))


if __name__ == "__main__":
    sys.stdout.write(table())
