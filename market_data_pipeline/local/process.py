"""Child processes that leave nothing behind, and how a stand-in says where it can be reached."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from market_data_pipeline.local import ProductionRefusedError, refuse_production

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
        output: the log file that its output goes to, or `subprocess.PIPE`.
        environment: its whole environment; by default this process's.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        output: Path | int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self._log = name, output if isinstance(output, Path) else None
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD], stdin=subprocess.PIPE, process_group=0, close_fds=True
        )
        with contextlib.ExitStack() as stack:
            sink = stack.enter_context(output.open("w")) if isinstance(output, Path) else output
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=self._guard.pid,
            )

    @property
    def output(self) -> IO[bytes]:
        """What it writes, if that goes to a pipe. Ends when the last process of its group has."""
        assert self._process.stdout is not None
        return self._process.stdout

    def check(self) -> None:
        """Raises ChildDiedError if it has ended."""
        status = self._process.poll()
        if status is not None:
            raise ChildDiedError(f"{self.name} has ended with status {status}.{self._log_end()}")

    def interrupt(self, signal_number: int = signal.SIGTERM) -> None:
        """Asks the whole group to end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._guard.pid, signal_number)

    def end(self, seconds: float) -> None:
        """Waits for the child, so long at most, and then ends what is left of its group."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._process.wait()
        self._guard.wait()

    def _log_end(self, lines: int = 20) -> str:
        if self._log is None:
            return ""
        end = self._log.read_text(errors="replace").splitlines()[-lines:]
        return "".join(f"\n    {line}" for line in [f"The end of {self._log}:", *end])


@contextlib.contextmanager
def stand_in(name: str, module: str, folder: Path, *arguments: str) -> Iterator[str]:
    """Runs a stand-in of this package as a process, until the context ends.

    Args:
        name: what to call it in messages.
        module: its module, which takes `--address-file` and `arguments`.
        folder: where its log and address files go.

    Returns:
        Its address.

    Raises:
        ChildDiedError: it did not come up.
    """
    child = start_stand_in(name, module, folder, *arguments)
    try:
        yield wait_for_address(child, address_file(folder, module))
    finally:
        child.interrupt()
        child.end(seconds=5)


def start_stand_in(
    name: str,
    module: str,
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Starts a stand-in as `stand_in` does, without waiting for it."""
    address_file(folder, module).unlink(missing_ok=True)
    command = [sys.executable, "-m", f"{__package__}.{module}"]
    command += ["--address-file", str(address_file(folder, module)), *arguments]
    return Child(name, command, folder / f"{module}.log", environment)


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
    """The command line that stand-ins have in common. Ends the process in production."""
    parser = argparse.ArgumentParser(description=f"{name}, a development stand-in.")
    parser.add_argument("--address-file", type=Path, help="where to say how it can be reached")
    try:
        refuse_production(name)
    except ProductionRefusedError as refused:
        parser.exit(1, f"{refused}\n")
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
    """Makes SIGTERM and SIGINT raise KeyboardInterrupt, also where a shell had them ignored."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
