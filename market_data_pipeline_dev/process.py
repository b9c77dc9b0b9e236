"""Child processes that leave nothing behind, and how a stand-in says where it can be reached."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

# It leads the child's process group, and ends the whole group, itself too, as soon as the pipe
# to the parent closes: when the parent says so, or is gone, however it went.
GUARD = "trap '' INT TERM HUP; read _; kill -KILL 0"


class ChildDiedError(RuntimeError):
    """A child ended that should not have; the message shows the end of its log."""


class Child:
    """A process, with all that it starts, in a process group that ends with this process.

    Args:
        name: what to call it in messages.
        command: what to run.
        environment: its whole environment; None for this process's.
        log: the file that its output goes to.
        shown: which lines of its output are shown as well; by default none.
        stop_signal: what makes it end in good order.
        patience: seconds that it may take to do so.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None,
        log: Path,
        shown: Callable[[bytes], bool] | None = None,
        stop_signal: int = signal.SIGTERM,
        patience: float = 5,
    ) -> None:
        self._name, self._log, self._shown = name, log, shown
        self._stop_signal, self._patience = stop_signal, patience
        self._guard = subprocess.Popen(["sh", "-c", GUARD], stdin=subprocess.PIPE, process_group=0)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
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
            raise ChildDiedError(f"{self._name} has ended with status {status}.{self._log_end()}")

    def stop(self) -> None:
        """Ends it and all that it has started, by force when its patience is over."""
        self._shown = None  # what its parts say about the signal is for the log
        os.killpg(self._guard.pid, self._stop_signal)
        # The pipe ends with the last process that may write to it, not with the first.
        self._reader.join(self._patience)
        os.killpg(self._guard.pid, signal.SIGKILL)
        self._process.wait()
        self._guard.wait()

    def _read(self) -> None:
        with self._log.open("wb", buffering=0) as log:
            for line in self._process.stdout or ():
                log.write(line)
                if self._shown and self._shown(line):
                    show(line)

    def _log_end(self, lines: int = 20) -> str:
        end = self._log.read_text(errors="replace").splitlines()[-lines:]
        return "\n    ".join([f" The end of {self._log}:", *end])


def show(line: bytes) -> None:
    """Writes a line to the output, if it can still be written to."""
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def stand_in(module: str, folder: Path, *arguments: str) -> Iterator[str]:
    """Runs a stand-in of this package as a process, until the context ends.

    Args:
        module: its module, which takes `--address-file` and `arguments`.
        folder: where its log and address files go.

    Returns:
        Its address.

    Raises:
        ChildDiedError: it did not come up.
    """
    child = start_stand_in(module, folder, *arguments)
    try:
        yield wait_for_address(child, address_file(folder, module))
    finally:
        child.stop()


def start_stand_in(
    module: str, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Child:
    """Starts a stand-in as `stand_in` does, without waiting for it."""
    file = address_file(folder, module)
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"{__package__}.{module}", "--address-file", str(file)]
    name, log = f"The {module} stand-in", folder / f"{module}.log"
    return Child(name, [*command, *arguments], environment, log)


def address_file(folder: Path, module: str) -> Path:
    """Where the stand-in of a module says where it can be reached."""
    return folder / f"{module}.address"


def wait_for_address(child: Child, file: Path) -> str:
    """Waits until a stand-in is up, and returns its address.

    Raises:
        ChildDiedError: it ended before it was up.
    """
    while not file.exists():
        child.check()
        time.sleep(0.02)
    return file.read_text()


def stand_in_parser(name: str) -> argparse.ArgumentParser:
    """The command line that stand-ins have in common."""
    parser = argparse.ArgumentParser(description=f"{name}, a development stand-in.")
    parser.add_argument("--address-file", type=Path, help="where to say how it can be reached")
    return parser


@contextlib.contextmanager
def announced(name: str, address: str, file: Path | None) -> Iterator[None]:
    """Says where this process can be reached: on its output and, while it can be, in `file`."""
    sys.stdout.write(f"{name}, a development stand-in: {address}\n")
    sys.stdout.flush()
    if file is None:
        yield
        return
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(address)
    draft.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def stop_on_signals() -> None:
    """Makes SIGTERM, SIGINT (ignored or not so far) and SIGHUP raise KeyboardInterrupt."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)
