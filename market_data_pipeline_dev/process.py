"""Child processes that leave nothing behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# It leads the child's process group, and ends the whole group, itself too, as soon as the pipe
# to the parent closes: when the parent says so, or is gone, however it went.
GUARD = "trap '' INT TERM HUP; read _; kill -KILL 0"


class ChildDiedError(RuntimeError):
    """A child ended that should not have; the message shows the end of its log."""


class Child:
    """A process, with all that it starts, in a process group that ends with this process.

    Its environment and its working directory (`folder`) are this process's unless they are given.
    Its output goes to `log`; the lines that `shown` picks are shown as well. `stop_signal` makes it
    end in good order, for which it has so many seconds of `patience`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None,
        log: Path,
        shown: Callable[[bytes], object] | None = None,
        stop_signal: int = signal.SIGTERM,
        patience: float = 5,
        folder: Path | None = None,
    ) -> None:
        self._name, self._log, self._shown = name, log, shown
        self._stop_signal, self._patience = stop_signal, patience
        self._log.write_bytes(b"")
        self._guard = subprocess.Popen(["sh", "-c", GUARD], stdin=subprocess.PIPE, process_group=0)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            process_group=self._guard.pid,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def check(self) -> None:
        """Raises ChildDiedError if it has ended."""
        status = self._process.poll()
        if status is not None:
            self._reader.join(1)  # until its last words are in the log
            end = self._log.read_text(errors="replace").splitlines()[-20:]
            words = "\n    ".join([f"The end of {self._log}:", *end])
            raise ChildDiedError(f"{self._name} has ended with status {status}. {words}")

    def said(self, pattern: str) -> str:
        """The first group of a pattern, once its output has it. Raises as `check`."""
        while not (found := re.search(pattern, self._log.read_text(errors="replace"))):
            self.check()
            time.sleep(0.02)
        return found[1]

    def stop(self) -> None:
        """Ends it and all that it has started, by force when its patience is over."""
        self._shown = None  # what its parts say about the signal is for the log
        os.killpg(self._guard.pid, self._stop_signal)
        # The pipe ends with the last process that may write to it, not with the first.
        self._reader.join(self._patience)
        os.killpg(self._guard.pid, signal.SIGKILL)
        self._process.wait()
        self._guard.communicate()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._log.open("ab", buffering=0) as log, self._process.stdout as output:
            for line in output:
                log.write(line)
                if self._shown and self._shown(line):
                    say(line.decode(errors="replace").rstrip("\n"))


def say(text: str) -> None:
    """Writes a line to the output, if it can still be written to."""
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def stop_on_signals() -> None:
    """Makes SIGTERM, SIGINT (ignored or not so far) and SIGHUP raise KeyboardInterrupt."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
