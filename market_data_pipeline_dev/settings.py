"""Settings of `make dev` and `make tail`, from what `market_data_pipeline.dotenv` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Environment = Mapping[str, str]


class SettingError(ValueError):
    """A setting does not say what it must; the message names it and what to do."""


def setting(env: Environment, name: str, default: str = "") -> str:
    """The value of a setting; a blank one counts as not set."""
    return env.get(name, "").strip() or default


def state_folder(env: Environment) -> Path:
    """Where a local deployment keeps what it has to remember (MARKET_DATA_HOME)."""
    return Path(setting(env, "MARKET_DATA_HOME", ".dev")).absolute()


def port(env: Environment, name: str, default: int) -> int:
    """The port that a setting names.

    Raises:
        SettingError: it is not a port.
    """
    value = setting(env, name, str(default))
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise SettingError(f"{name} is {value!r}: set it to a port such as {default}.")
    return int(value)
