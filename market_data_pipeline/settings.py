"""Every setting: an environment variable, its type, its default and what it is for."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from market_data_pipeline import ClearError

KAFKA_CONFIG = "KAFKA_CONFIG_"
# Variables in the files of compose and of the instance that are not settings.
DEPLOYMENT = ("MARKET_DATA_STATE", "MONGO_PASSWORD", "MONGO_ROOT_PASSWORD")
NO_SECRET = SecretStr("")
LONGEST = 86_400  # seconds
INTERVALS_IN_MINUTES = (5, 10, 15, 20, 30, 60)
# The days of the bundled calendar.
FIRST_DAY, LAST_DAY = date(1986, 1, 2), date(2036, 12, 31)


class SettingError(ClearError):
    """A setting has an invalid value; the text names the setting, not the value."""


def _setting(default: Any, text: str, *, shown: str | None = None, **bounds: Any) -> Any:
    """A setting: its default, its description, and the default as the table shows it."""
    return Field(default, description=text, json_schema_extra={"shown": shown}, **bounds)


def _valid_if(test: Callable[[Any], object]) -> AfterValidator:
    def checked(value: Any) -> Any:
        with suppress(PyMongoError):
            if test(value):
                return value
        raise ValueError

    return AfterValidator(checked)


def _parsed(secret: SecretStr) -> Mapping[str, Any]:
    """What pymongo reads in an address; one with +srv is not looked up, nor are its files."""
    return parse_uri(secret.get_secret_value().replace("+srv:", ":", 1), validate=False)


_PORT = r"(6553[0-5]|655[0-2]\d|65[0-4]\d\d|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3})"
_SERVER = rf"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:{_PORT})?"
_BROKER = rf"(\w+://)?{_SERVER}"
_SECONDS = f"a number such as 0.5, {LONGEST} at the most"

# The text says what a value has to be; an error shows it.
Flag = Annotated[bool, "true or false"]
Seconds = Annotated[float, Field(gt=0, le=LONGEST), _SECONDS]
Pause = Annotated[float, Field(ge=0, le=LONGEST), _SECONDS]
Share = Annotated[float, Field(ge=0, le=1), "a number from 0 to 1 such as 0.5"]
Whole = Annotated[int, "a whole number such as 30"]
Interval = Annotated[
    int, _valid_if(lambda n: n in INTERVALS_IN_MINUTES), f"one of {str(INTERVALS_IN_MINUTES)[1:-1]}"
]
Port = Annotated[int, Field(ge=1, le=65535), "a port such as 3000"]
Day = Annotated[
    date,
    # pydantic itself takes a number for a date.
    BeforeValidator(lambda value: date.fromisoformat(str(value))),
    Field(ge=FIRST_DAY, le=LAST_DAY),
    f"a date from {FIRST_DAY} to {LAST_DAY}",
]
WebAddress = Annotated[
    str,
    Field(pattern=rf"^https?://{_SERVER}(/[^?#\s]*)?$"),
    _valid_if(urlsplit),
    "an address such as https://brapi.dev, without user, query and fragment",
]
Servers = Annotated[
    str,
    Field(pattern=rf"^{_SERVER}(\s*,\s*{_SERVER})*$"),
    "the name of a host; an address with a user belongs in MONGO_URI",
]
Brokers = Annotated[
    str,
    Field(pattern=rf"^{_BROKER}(\s*,\s*{_BROKER})*$"),
    "host:port, several with commas between them; a user belongs in KAFKA_CONFIG_…",
]
MongoAddress = Annotated[
    SecretStr,
    _valid_if(_parsed),
    "a connection string such as mongodb://user:p%40ssword@host:27017/",
]
Database = Annotated[str, Field(pattern=r"""^[^/\\."$@\s]*$"""), "the name of a database"]
Name = Annotated[str, Field(pattern=r"^[^/@\s]*$"), "a name without slash, @ and space"]
File = Annotated[str, _valid_if(lambda text: "://" not in text), "the path of a file"]
Folder = Annotated[
    str,
    _valid_if(lambda text: not re.search("://.*:.*@|://.*[?]", text)),
    "a folder, or an address without password and query",
]
Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$"), "letters, digits and underscores"]


def _kafka_config() -> dict[str, SecretStr]:
    """librdkafka's properties from the environment, by their names there (`sasl.username`)."""
    return {
        name[len(KAFKA_CONFIG) :].lower().replace("_", "."): SecretStr(value)
        for name, value in os.environ.items()
        if name.upper().startswith(KAFKA_CONFIG) and value.strip()
    }


class Settings(BaseSettings):
    """The settings of a deployment, by the names of the variables in lower case.

    A setting that is not given is read from the environment; a blank value counts as not set.

    Raises:
        SettingError: a value is invalid.
    """

    model_config = SettingsConfigDict(
        frozen=True, hide_input_in_errors=True, validate_default=False, enable_decoding=False
    )

    brapi_token: SecretStr = _setting(NO_SECRET, "API token; without it, runs fail with a message")
    brapi_plan: Literal["free", "startup", "pro"] = _setting(
        "free", "plan of the token: `free`, `startup` or `pro`"
    )
    brapi_base_url: WebAddress = _setting("https://brapi.dev", "address of the API")
    brapi_tickers_per_request: Whole = _setting(
        0, "tickers in one request, if different from the plan's", shown="by plan", ge=0
    )
    brapi_intraday: Annotated[bool | None, "true or false"] = _setting(
        None, "`true` if intraday bars may be requested", shown="by plan"
    )
    brapi_longest_range: Literal[
        "", "1d", "5d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "max"
    ] = _setting("", "how far back history may be requested, such as `3mo`", shown="by plan")
    brapi_min_interval_seconds: Pause = _setting(0.5, "seconds between the starts of two requests")
    brapi_timeout_seconds: Seconds = _setting(10.0, "seconds for one request")
    brapi_step_timeout_seconds: Seconds = _setting(240.0, "seconds for all requests of a run")
    brapi_quota_share: Share = _setting(
        1.0, "share of the token's quota (0 to 1) that this code location may spend"
    )
    mongo_uri: MongoAddress = _setting(
        NO_SECRET,
        "connection string, with credentials if needed; replaces `MONGO_HOST` and `MONGO_PORT`",
    )
    mongo_host: Servers = _setting("localhost", "server")
    mongo_port: Port = _setting(27017, "its port")
    mongo_db: Database = _setting(
        "", "database", shown="that of `MONGO_URI`, otherwise `market_data_db`"
    )
    kafka_bootstrap_servers: Brokers = _setting(
        "localhost:9092", "brokers, as comma-separated `host:port`"
    )
    kafka_topic: Name = _setting("trading-assets-market-data-v1", "topic; created if missing")
    kafka_updated_at_format: Literal["", "epoch", "iso8601"] = _setting(
        "",
        "form of `updated_at`: `epoch` (Unix seconds) or `iso8601`; `java.time.Instant` reads "
        "both, `LocalDateTime` only `iso8601`",
        shown="`epoch`, with a warning",
    )
    kafka_transactions: Flag = _setting(
        True, "`false` for clusters that forbid transactions: a window may then appear in part"
    )
    kafka_transactional_id: Name = _setting(
        "",
        "identity of the publication; unique to this code location",
        shown="`market-data-pipeline`, then the prefix",
    )
    kafka_timeout_seconds: Seconds = _setting(60.0, "seconds for publishing a window")
    kafka_create_topic: Flag = _setting(True, "whether a missing topic is created")
    kafka_topic_partitions: Whole = _setting(
        4, "partitions of a topic created here", ge=1, lt=2**31
    )
    kafka_topic_replication_factor: Whole = _setting(
        -1, "replicas of a topic created here", shown="the broker's", ge=-1, lt=2**15
    )
    b3_history_url: WebAddress = _setting(
        "https://bvmf.bmfbovespa.com.br/InstDados/SerHist",
        "folder of B3's files of official prices (`COTAHIST_…ZIP`)",
    )
    b3_ca_bundle: File = _setting(
        "",
        "file with the CA certificates that verify B3, if B3's chain is incomplete",
        shown="those of `certifi`",
    )
    watchlist_file: File = _setting(
        "", "the tickers, one a line, or a spreadsheet saved as CSV", shown="the 50 instruments"
    )
    sync_interval_minutes: Interval = _setting(30, "length of a window: 5, 10, 15, 20, 30 or 60")
    partitions_start: Day = _setting(
        date(2026, 1, 2),
        "first day with windows; Dagster's percentages count all windows since then",
    )
    quotes_path: Folder = _setting(
        "",
        "folder or fsspec address of the Parquet files of quotes",
        shown="the instance's storage folder",
    )
    asset_key_prefix: Prefix = _setting(
        "", "prefix of the asset keys, if an instance has several code locations"
    )
    publish_made_up_prices: Flag = _setting(
        False, "`true` lets the made-up prices of a sandbox reach the database and the topic"
    )
    alert_webhook_url: SecretStr = _setting(
        NO_SECRET,
        "incoming webhook in Slack's format, or an address of Apprise: checks that fail and runs "
        "that failed",
    )
    dagster_url: WebAddress = _setting("", "address of the UI, for the links in those messages")
    dagster_port: Port = _setting(3000, "`make dev`: port of the UI")
    sandbox_port: Port = _setting(8790, "`make dev`: port of the sandbox")
    embedded_mongo_port: Port = _setting(27117, "`make dev`: port of the embedded MongoDB")
    market_data_home: str = _setting(".dev", "`make dev`: folder of its state")
    kafka_client_properties: Annotated[
        dict[str, SecretStr], f"nothing; each property has a variable of its own, {KAFKA_CONFIG}…"
    ] = Field(
        default_factory=_kafka_config,
        description="any other librdkafka property: `KAFKA_CONFIG_SECURITY_PROTOCOL=SASL_SSL`",
        json_schema_extra={"shown": "", "variable": f"{KAFKA_CONFIG}…"},
    )

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            text = f"{name.upper()} cannot be used: set it to {_expected(name)}."
            raise SettingError(text) from None

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, given: dict[str, Any]) -> dict[str, Any]:
        stripped = ((name, v.strip() if isinstance(v, str) else v) for name, v in given.items())
        return {name: v for name, v in stripped if v != ""}

    @property
    def transactional_id(self) -> str:
        """The identity of the publication; empty if transactions are turned off."""
        named = "-".join(filter(None, ["market-data-pipeline", self.asset_key_prefix]))
        return (self.kafka_transactional_id or named) if self.kafka_transactions else ""

    @property
    def mongo_database(self) -> str:
        """The database: MONGO_DB, or that of MONGO_URI."""
        of_uri = self.mongo_uri.get_secret_value() and _parsed(self.mongo_uri)["database"]
        return self.mongo_db or of_uri or "market_data_db"

    def is_set(self, name: str) -> bool:
        """Whether a variable has a value of its own."""
        return name.lower() in self.model_fields_set


@cache
def settings() -> Settings:
    """The settings of this process, read once. Raises as `Settings`."""
    return Settings()


def names() -> tuple[str, ...]:
    """The variables of all settings, without librdkafka's (`KAFKA_CONFIG_…`)."""
    return tuple(n.upper() for n in Settings.model_fields if n != "kafka_client_properties")


def misspelled(environ: Mapping[str, str]) -> dict[str, str]:
    """A sentence for each variable that is set and looks like a setting, but is not one."""
    said = {}
    for name in sorted(environ):
        upper = name.upper()  # a setting is read in either case
        known = upper in names() or upper in DEPLOYMENT or upper.startswith(KAFKA_CONFIG)
        ours = upper.startswith(("BRAPI_", "MARKET_DATA_"))  # no other program's
        meant = difflib.get_close_matches(upper, names(), n=1, cutoff=0.6 if ours else 0.85)
        if environ[name].strip() and not known and (meant or ours):
            advice = f": did you mean {meant[0]}?" if meant else "."
            said[name] = f"{name} is not a setting and is ignored{advice}"
    return said


def _expected(name: str) -> str:
    field = Settings.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(filter(None, get_args(field.annotation)))
    return next(each for each in field.metadata if isinstance(each, str))
