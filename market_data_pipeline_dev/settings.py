"""The settings of `make dev` and its neighbours: those of the shell, and `.env` over them."""

import json
import os
import re
from pathlib import Path

from dotenv import dotenv_values

from market_data_pipeline.settings import SettingError, Settings

BRAPI = "https://brapi.dev"
PATHS = re.compile("(?i)WATCHLIST_FILE|QUOTES_PATH|B3_CA_BUNDLE|KAFKA_CONFIG_.*_LOCATION")


def read_settings() -> Settings:
    """The settings, with the lines of `.env`, which are in this process's environment then.

    A value is taken as it is written, and a blank one counts as not set. Paths become absolute.
    Raises as `Settings`, also if `.env` cannot be read.
    """
    try:
        lines = dotenv_values(".env", interpolate=False)
        os.environ.update({name: line for name, line in lines.items() if line and line.strip()})
    except (OSError, ValueError):
        raise SettingError(".env cannot be read: save it as a text file in UTF-8.") from None
    for name in filter(PATHS.fullmatch, [*os.environ]):
        if (path := os.environ[name].strip()) and "://" not in path:
            os.environ[name] = str(Path(path).expanduser().absolute())
    return Settings()


def brapi_is_sandbox(given: Settings) -> bool:
    """Whether the prices are to be made up, as there is neither a token nor another address."""
    return not (given.is_set("BRAPI_TOKEN") or given.is_set("BRAPI_BASE_URL"))


def state_of_brapi(given: Settings) -> Path:
    """The folder of what comes from one Brapi: the instance, its quotes, the embedded MongoDB.

    An address other than Brapi's own has a folder of its own: prices there may be made up too.
    """
    address = given.brapi_base_url.rstrip("/")
    name = "brapi" if address == BRAPI else re.sub(r"\W+", "-", address)
    home = Path(given.market_data_home).expanduser().absolute()
    return home / ("sandbox" if brapi_is_sandbox(given) else name)


def stand_ins_file(given: Settings) -> Path:
    """What a running deployment adds to these settings: a JSON object of variables."""
    return state_of_brapi(given) / "stand-ins.json"


def join(given: Settings) -> Settings:
    """The settings of the deployment that runs with these; a SettingError if there is none."""
    try:
        os.environ.update(json.loads(stand_ins_file(given).read_text()))
    except FileNotFoundError:
        raise SettingError("`make dev` does not run with these settings: start it.") from None
    return Settings()
