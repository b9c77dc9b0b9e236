"""A process that has imported the code of a job, and forks a run of it for each line that it reads.

A line is the arguments of `dagster api execute_run`, which is what a run is in a pod as well; the
answer is the number of the run's process, which begins at the next line. A template that is out of
date ends instead of answering: a file of the code, or `.env`, has changed since it was read. When
the launcher has ended, so does the template; the runs go on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path

from market_data_pipeline.runs.dagster_internals import execute_run, load_job

# What a run imports when it needs it: a fork has it already.
PRELOADED = ("pyarrow.json", "pyarrow.parquet")
ELSEWHERE = tuple({sys.prefix, sys.base_prefix})


def sources() -> dict[str, int]:
    """The files that this process has imported, outside the environment, and when they changed."""
    files = {getattr(module, "__file__", None) for module in [*sys.modules.values()]}
    ours = {file for file in files if file and not file.startswith(ELSEWHERE)}
    return {file: _changed(file) for file in ours | {str(Path(".env").absolute())}}


def _changed(file: str) -> int:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0


def main() -> None:
    """Loads the job of the first line, and forks until the input ends."""
    first = sys.stdin.readline()
    if not first:
        return
    load_job(first)
    for module in PRELOADED:
        import_module(module)
    read = sources()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the runs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the launcher, and this after it
    say("ready")
    for line in sys.stdin:
        if sources() != read or threading.active_count() > 1:
            return
        begun, begin = os.pipe()
        if pid := os.fork():
            os.close(begun)
            say(str(pid))
            sys.stdin.readline()
            os.close(begin)
        else:
            os.close(begin)
            os.read(begun, 1)  # ends when the template closes its end, or is gone
            os.close(begun)
            _become_a_run()
            execute_run(line)
            return


def _become_a_run() -> None:
    """Lets go of what belongs to the template."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def say(word: str) -> None:
    """Answers the launcher."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
