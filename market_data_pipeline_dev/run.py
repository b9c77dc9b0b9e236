"""Runs a command beside `make dev`, with the same instance, settings and stand-ins.

    python -m market_data_pipeline_dev.run dg launch --assets quotes --partition KEY

A command of Dagster by itself knows neither where the stand-ins are nor which instance it is. It
runs in the folder of the instance, where no `.env` lies that it would read.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from market_data_pipeline.settings import SettingError
from market_data_pipeline_dev.settings import join, read_settings, state_of_brapi


def main() -> NoReturn:
    """Becomes the command of the arguments; programs of this Python's environment come first."""
    try:
        given = read_settings()
        join(given)
    except SettingError as error:
        sys.exit(str(error))
    programs = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([programs, os.environ.get("PATH", "")])
    os.chdir(state_of_brapi(given))
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
