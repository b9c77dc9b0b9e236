"""Settings: what counts as set, what is refused at start, and that no value is shown."""

from __future__ import annotations

import re

import pytest
from dotenv import dotenv_values

from market_data_pipeline.settings import SettingError, Settings, misspelled
from market_data_pipeline_tests.conftest import LoadDefinitions
from market_data_pipeline_tests.deploy.compose import COMPOSE, PROCESSES
from market_data_pipeline_tests.supervised import ROOT

EXAMPLE = re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
ADDRESS = "set it to an address such as https://brapi.dev, without user, query and fragment."
WHOLE = "set it to a whole number such as 30."
SECONDS = "set it to a number such as 0.5, 86400 at the most."
HOST = "set it to the name of a host; an address with a user belongs in MONGO_URI."
BROKERS = "set it to host:port, several with commas between them; a user belongs in KAFKA_CONFIG_…."
FOLDER = "set it to a folder, or an address without password and query."
NAME = "set it to a name without slash, @ and space."
REFUSED = {
    "BRAPI_PLAN": ("set it to one of free, startup, pro.", "gold"),
    "BRAPI_BASE_URL": (
        ADDRESS,
        "brapi.dev",
        "ftp://brapi.dev",
        "https://",
        "http://[::1",
        "http://[::::]",
        "http://brapi.dev:65536",
        "https://user:s3cr3t@brapi.dev",
        "https://s3cr3t@brapi.dev",
        "https://brapi.dev?token=s3cr3t",
        "https://brapi.dev/#s3cr3t",
    ),
    "BRAPI_TICKERS_PER_REQUEST": (WHOLE, "half", "-1"),
    "BRAPI_INTRADAY": ("set it to true or false.", "maybe"),
    "BRAPI_MIN_INTERVAL_SECONDS": (SECONDS, "-1"),
    "BRAPI_TIMEOUT_SECONDS": (SECONDS, "inf", "nan", "0"),
    "BRAPI_QUOTA_SHARE": ("set it to a number from 0 to 1 such as 0.5.", "50"),
    "MONGO_HOST": (
        HOST,
        "mongodb://user:s3cr3t@db",
        "user:s3cr3t@db",
        "s3cr3t@db",
        "db/?s3cr3t",
        "::1",
    ),
    "MONGO_URI": (
        "set it to a connection string such as mongodb://user:p%40ssword@host:27017/.",
        "localhost:27017",
        "http://me:s3cr3t@db",
        "mongodb://",
        "mongodb://me:s3cr3t@p@db",
        "mongodb://db:s3cr3t",
        "mongodb://db:99999",
        "mongodb://db/my prices",
        "mongodb+srv://me:s3cr3t@p@db",
    ),
    "MONGO_DB": (
        "set it to the name of a database.",
        "mongodb://user:s3cr3t@db/prices",
        "market.data",
    ),
    "KAFKA_TOPIC": (NAME, "user:s3cr3t@broker"),
    "MONGO_PORT": ("set it to a port such as 3000.", "0", "s3cr3t"),
    "KAFKA_BOOTSTRAP_SERVERS": (
        BROKERS,
        "user:s3cr3t@broker:9092",
        "broker:9092,SASL_SSL://user:s3cr3t@other:9092",
        "broker:s3cr3t",
        "broker:99999",
    ),
    "KAFKA_UPDATED_AT_FORMAT": ("set it to one of epoch, iso8601.", "text"),
    "KAFKA_CREATE_TOPIC": ("set it to true or false.", "maybe"),
    "KAFKA_TOPIC_PARTITIONS": (WHOLE, "0", "2147483648", "9" * 30),
    "KAFKA_TOPIC_REPLICATION_FACTOR": (WHOLE, "-2", "32768", "9" * 30),
    "KAFKA_CLIENT_PROPERTIES": (
        "set it to nothing; each property has a variable of its own, KAFKA_CONFIG_….",
        "s3cr3t",
        '{"sasl.password": "s3cr3t"}',
        "[1]",
    ),
    "WATCHLIST_FILE": ("set it to the path of a file.", "https://s3cr3t@example.com/list.csv"),
    "QUOTES_PATH": (
        FOLDER,
        "s3://key:s3cr3t@bucket/quotes",
        "s3://key:s3/cr3t@bucket/quotes",
        "simplecache::sftp://me:s3cr3t@host/quotes",
        "https://example.com/quotes?sig=s3cr3t",
    ),
    "SYNC_INTERVAL_MINUTES": ("set it to one of 5, 10, 15, 20, 30, 60.", "0", "7", "45", "1h"),
    "PARTITIONS_START": (
        "set it to a date from 1986-01-02 to 2036-12-31.",
        "yesterday",
        "20260",
        "1985-12-31",
        "2037-01-01",
    ),
    "ASSET_KEY_PREFIX": ("set it to letters, digits and underscores.", "blue-chips"),
    "DAGSTER_URL": (ADDRESS, "https://me:s3cr3t@dagster.example"),
}


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [(name, value, texts[0]) for name, texts in REFUSED.items() for value in texts[1:]],
)
def test_a_value_that_cannot_be_used_is_refused_and_not_shown(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingError) as refused:
        Settings()

    assert str(refused.value) == f"{name} cannot be used: {sentence}"
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRAPI_BASE_URL", "http://127.0.0.1:8790/"),
        ("MONGO_HOST", "db-1.example.com:27018,[::1]:27017"),
        ("KAFKA_BOOTSTRAP_SERVERS", "SASL_SSL://one:9092, two.example.com:9093,[fe80::1]:9092"),
        ("QUOTES_PATH", "abfs://container@account.dfs.core.windows.net/quotes"),
        ("DAGSTER_URL", "https://example.com/dagster"),
    ],
)
def test_an_address_without_a_secret_is_taken(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    assert getattr(Settings(), name.lower()) == value


@pytest.mark.parametrize(
    ("uri", "given", "database"),
    [
        ("", "", "market_data_db"),
        ("mongodb://db/", "", "market_data_db"),
        ("mongodb://me:p%2Fw@one,two:27018/prices?w=1", "", "prices"),
        ("mongodb+srv://cluster.example.com/my%2Dprices", "", "my-prices"),
        ("mongodb://db/prices", "others", "others"),
        ("mongodb://me:p[s3cr3t]w@db/prices?w=1", "", "prices"),
        ("mongodb://me:p]w#@[::1]:27017/prices", "", "prices"),
    ],
)
def test_the_database_is_that_of_mongo_db_or_of_the_uri(
    uri: str, given: str, database: str
) -> None:
    assert Settings(mongo_uri=uri, mongo_db=given).mongo_database == database


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BRAPI_TOKN", ": did you mean BRAPI_TOKEN?"),
        ("BRAPI_TIMEOUT", ": did you mean BRAPI_TIMEOUT_SECONDS?"),
        ("KAFKA_BOOTSTRAP_SERVER", ": did you mean KAFKA_BOOTSTRAP_SERVERS?"),
        ("MONGODB_URI", ": did you mean MONGO_URI?"),
        ("PUBLISH_MADEUP_PRICES", ": did you mean PUBLISH_MADE_UP_PRICES?"),
        ("BRAPI_XYZZY_QQ", "."),
        ("kafka_bootstrap_server", ": did you mean KAFKA_BOOTSTRAP_SERVERS?"),
        ("brapi_xyzzy_qq", "."),
    ],
)
def test_a_mistaken_name_is_told_with_the_one_that_was_meant(name: str, meant: str) -> None:
    said = misspelled({name: "x", "PATH": "/bin", "BRAPI_TOKEM": " "})
    assert said == {name: f"{name} is not a setting and is ignored{meant}"}


def test_names_of_others_and_of_the_deployment_are_not_told() -> None:
    names = {name for each in PROCESSES for name in COMPOSE["services"][each]["environment"]}
    names |= set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    names |= {"KAFKA_HOME", "KAFKA_OPTS", "MONGO_HOME", "DAGSTER_HOME", "TEST_MONGO_URI"}
    for file in (ROOT / "deploy" / "watchlists").glob("*.env"):
        names |= dotenv_values(file).keys()
    names |= {*EXAMPLE, *map(str.lower, EXAMPLE)}
    assert misspelled(dict.fromkeys(names, "x")) == {}


def test_the_definitions_refuse_and_warn_at_start(
    load_definitions: LoadDefinitions, caplog: pytest.LogCaptureFixture
) -> None:
    load_definitions(KAFKA_BOOTSTRAP_SERVER="x")
    assert "did you mean KAFKA_BOOTSTRAP_SERVERS?" in caplog.text

    with pytest.raises(Exception, match=r"^MONGO_HOST .*: set it to [^\n]*$"):
        load_definitions(MONGO_HOST="me:s3cr3t@db")
