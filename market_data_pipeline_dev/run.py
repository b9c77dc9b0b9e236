"""Runs a command beside `make dev`, with the same instance, settings and stand-ins.

    python -m market_data_pipeline_dev.run dg launch --assets quotes --partition KEY

A command of Dagster by itself knows neither where the stand-ins are nor which instance it is.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from market_data_pipeline.dotenv import environment, final
from market_data_pipeline_dev.dev import stand_ins_file


def main() -> NoReturn:
    """Becomes the command of the arguments; programs of this Python's environment come first."""
    env = environment()
    try:
        env |= json.loads(stand_ins_file(env).read_text())
    except FileNotFoundError:
        sys.exit("`make dev` does not run with these settings: start it first.")
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    os.execvpe(sys.argv[1], sys.argv[1:], env | final(env))


if __name__ == "__main__":
    main()
