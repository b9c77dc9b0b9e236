"""Settings in `.env`: the one place that reads the file.

Dagster's commands read the `.env` of the working directory too, before anything of this package is
loaded, and a blank line of it then hides the shell's value. `DotEnvLoader` undoes that; it is named
in `dagster.yaml`.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dagster._core.secrets.loader import SecretsLoader
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dotenv import dotenv_values

from market_data_pipeline.settings import names

FILE = ".env"
# `make dev` sets it for the processes that it starts: a JSON object with every setting. In them
# no line of `.env` changes a setting, be it blank or written later.
FINAL = "MARKET_DATA_SETTINGS"

KAFKA_PROPERTY = "KAFKA_CONFIG_"
# What is in compose's or the instance's files, beside the settings of `.env.example`.
DEPLOYMENT = ("MARKET_DATA_STATE", "MONGO_PASSWORD", FINAL)
# Beginnings of names that no other program has.
OURS = ("BRAPI_", "MARKET_DATA_")
SIMILARITY = 0.85


def environment() -> dict[str, str]:
    """The environment of this process with the lines of `.env` over it, without what is blank."""
    values = {**os.environ, **{name: line for name, line in _lines().items() if line.strip()}}
    return {name: value for name, value in values.items() if value.strip()}


def final(env: Mapping[str, str]) -> dict[str, str]:
    """A variable for child processes that keeps the settings of `env` as they are there."""
    return {FINAL: json.dumps({name: env[name] for name in env if _is_setting(name)})}


def misspelled(env: Mapping[str, str]) -> list[str]:
    """A sentence for each variable of `env` that is set and resembles a setting, but is none."""
    said = []
    for name in sorted(env):
        if not env[name].strip() or _is_setting(name) or name in DEPLOYMENT:
            continue
        cutoff = 0.6 if name.startswith(OURS) else SIMILARITY
        meant = difflib.get_close_matches(name, names(), n=1, cutoff=cutoff)
        if meant:
            said.append(f"{name} is not a setting, nothing reads it: did you mean {meant[0]}?")
        elif name.startswith(OURS):
            said.append(f"{name} is not a setting, nothing reads it.")
    return said


def warn_of_misspelled() -> None:
    """Logs a warning for each variable of this process that `misspelled` names.

    A process that got its settings as `final` logs nothing: `make dev` has shown them.
    """
    if FINAL not in os.environ:
        for sentence in misspelled(os.environ):
            logging.getLogger("dagster").warning(sentence)


class DotEnvLoader(SecretsLoader, ConfigurableClass):
    """Gives Dagster's processes the lines of `.env` that are not blank.

    Dagster has read the file itself when this is made, which is before it loads any definitions:
    what a blank line has erased gets the value back that the process was started with. Where the
    system does not tell that (it is read from `/proc`), it stays blank.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        for name, value in _corrections():
            if value:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)

    def get_secrets_for_environment(self, location_name: str | None) -> dict[str, str]:
        """What Dagster puts into the environment of a code location and of its runs."""
        corrected = dict(_corrections())
        lines = {name: corrected.get(name, line) for name, line in _lines().items()}
        return {name: value for name, value in lines.items() if value.strip()}

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> DotEnvLoader:
        return cls(inst_data)


def _corrections() -> Iterator[tuple[str, str]]:
    """What a line of `.env` should not have changed, with its value, blank for none."""
    started_with = _environment_at_start()
    given = json.loads(os.environ.get(FINAL, "null"))
    for name, line in _lines().items():
        if given is not None and _is_setting(name):
            yield name, given.get(name, "")
        elif not line.strip() and not os.environ.get(name, "").strip():
            yield name, started_with.get(name, "").strip()


def _environment_at_start() -> dict[str, str]:
    try:
        content = os.fsdecode(Path("/proc/self/environ").read_bytes())
    except OSError:
        return {}
    return dict(each.split("=", 1) for each in content.split("\0") if "=" in each)


def _lines() -> dict[str, str]:
    return {name: line or "" for name, line in dotenv_values(FILE).items()}


def _is_setting(name: str) -> bool:
    return name in names() or name.startswith(KAFKA_PROPERTY)
