"""The supervisor of `make dev`: Dagster, and stand-ins for what is not configured.

It stays in the foreground, keeps what must outlive it in one folder, and ends all that it started
when it is told to stop, when a part of it dies, and when it is killed itself. What belongs to
made-up prices and what belongs to real ones is in folders of their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from market_data_pipeline.dotenv import environment, final, misspelled
from market_data_pipeline.market.watchlist import WatchlistError, load_watchlist
from market_data_pipeline_dev.orphans import close_orphans
from market_data_pipeline_dev.process import (
    Child,
    ChildDiedError,
    address_file,
    show,
    start_stand_in,
    stop_on_signals,
    wait_for_address,
)
from market_data_pipeline_dev.report import Filter, report_runs
from market_data_pipeline_dev.settings import (
    Environment,
    SettingError,
    port,
    setting,
    state_folder,
)

BRAPI = "https://brapi.dev"
MONGO = ("MONGO_URI", "MONGO_HOST")
KAFKA = ("KAFKA_BOOTSTRAP_SERVERS",)
PUBLISH = "PUBLISH_MADE_UP_PRICES"


class AlreadyRunningError(RuntimeError):
    """Another supervisor runs on the same folder."""


class Deployment:
    """Dagster and its stand-ins, as the environment asks for them.

    Raises:
        SettingError: a setting does not say what it must, a port that is needed cannot be used,
            made-up prices would go to a real service, or the working directory is not the
            repository's root.
        WatchlistError: the watchlist cannot be used.
    """

    def __init__(self, env: Environment) -> None:
        refuse_made_up_prices(env)
        self._given, self._env = dict(env), dict(env)
        self._folder, self._state = state_folder(env), state_of_brapi(env)
        self._children: list[Child] = []
        self._dagster_port = port(env, "DAGSTER_PORT", 3000)
        needed = {"DAGSTER_PORT": self._dagster_port}
        self._sandbox_port = self._mongo_port = 0
        if brapi_is_sandbox(env):
            needed["SANDBOX_PORT"] = self._sandbox_port = port(env, "SANDBOX_PORT", 8790)
            self._tickers = [*load_watchlist(setting(env, "WATCHLIST_FILE")).tickers]
        if not configured(env, MONGO):
            self._mongo_port = port(env, "EMBEDDED_MONGO_PORT", 27117)
            needed["EMBEDDED_MONGO_PORT"] = self._mongo_port
        _check_free(needed)
        if not Path("workspace.yaml").exists():
            raise SettingError("There is no workspace.yaml here: run it in the repository's root.")

    @property
    def address(self) -> str:
        """Where Dagster's UI is."""
        return f"http://127.0.0.1:{self._dagster_port}"

    def start(self) -> None:
        """Starts the stand-ins, then Dagster, and says what stands in for what.

        Raises:
            ChildDiedError: the embedded Kafka did not come up.
        """
        say(f"Market data pipeline, development deployment. Its state is in {self._state}")
        self._state.mkdir(parents=True, exist_ok=True)
        say(f"  Brapi    {self._start_brapi()}")
        say(f"  MongoDB  {self._start_mongo()}")
        say(f"  Kafka    {self._start_kafka()}")
        say(f"  Dagster  {self.address}, its log is {self._start_dagster()}")

    def watch(self) -> NoReturn:
        """Watches over the children.

        Raises:
            ChildDiedError: one of them has ended.
        """
        while True:
            for child in self._children:
                child.check()
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends everything, the last started first, each within a bound."""
        stand_ins_file(self._given).unlink(missing_ok=True)
        while self._children:
            self._children.pop().stop()

    def _start_brapi(self) -> str:
        if not self._sandbox_port:
            return setting(self._env, "BRAPI_BASE_URL", BRAPI)
        command = [sys.executable, "-m", "brapi_sandbox", "--port", str(self._sandbox_port)]
        command += ["--plan", setting(self._env, "BRAPI_PLAN", "free")]
        command += ["--tickers", ",".join(self._tickers)]
        log = self._folder / "sandbox.log"
        self._children.append(Child("The Brapi sandbox", command, self._env, log))
        address = f"http://127.0.0.1:{self._sandbox_port}"
        self._env |= {"BRAPI_BASE_URL": address, "BRAPI_TOKEN": "sandbox"}
        self._env.setdefault("B3_HISTORY_URL", f"{address}/InstDados/SerHist")
        if not configured(self._env, MONGO + KAFKA):
            self._env.setdefault(PUBLISH, "true")
        for name in ("no_proxy", "NO_PROXY"):
            self._env[name] = ",".join(filter(None, ["127.0.0.1", self._env.get(name)]))
        return f"sandbox with made-up prices at {address}, because BRAPI_TOKEN is not set"

    def _start_mongo(self) -> str:
        if not self._mongo_port:
            return f"as {configured(self._env, MONGO)} says"
        data = str(self._state / "mongo")
        self._stand_in("mongo", "--port", str(self._mongo_port), "--folder", data)
        address = self._env["MONGO_URI"] = f"mongodb://127.0.0.1:{self._mongo_port}"
        return f"embedded, over SQLite, at {address}, because MONGO_URI is not set"

    def _start_kafka(self) -> str:
        if configured(self._env, KAFKA):
            return self._env["KAFKA_BOOTSTRAP_SERVERS"]
        child = self._stand_in("kafka")
        address = wait_for_address(child, address_file(self._folder, "kafka"))
        self._env["KAFKA_BOOTSTRAP_SERVERS"] = address
        self._env.setdefault("KAFKA_UPDATED_AT_FORMAT", "epoch")  # no service reads the topic
        return f"embedded, in memory, at {address}, because KAFKA_BOOTSTRAP_SERVERS is not set"

    def _stand_in(self, module: str, *arguments: str) -> Child:
        child = start_stand_in(module, self._folder, *arguments, environment=self._env)
        self._children.append(child)
        return child

    def _start_dagster(self) -> Path:
        home, log = self._state / "dagster", self._state / "dagster.log"
        home.mkdir(exist_ok=True)
        shutil.copy("dagster.yaml", home)
        self._env["DAGSTER_HOME"] = str(home)
        added = dict(self._env.items() - self._given.items())
        stand_ins_file(self._given).write_text(json.dumps(added))
        command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml"]
        command += ["-h", "127.0.0.1", "-p", str(self._dagster_port)]
        env = self._env | final(self._env)
        dagster = Child(
            "Dagster", command, env, log, Filter(), stop_signal=signal.SIGINT, patience=20
        )
        self._children.append(dagster)
        return log


def say(text: str) -> None:
    """Writes a line of the supervisor's own."""
    show(f"{text}\n".encode())


def brapi_is_sandbox(env: Environment) -> bool:
    """Whether the prices are to be made up, as there is neither a token nor another address."""
    return not (setting(env, "BRAPI_TOKEN") or setting(env, "BRAPI_BASE_URL"))


def configured(env: Environment, names: Sequence[str]) -> str:
    """Those of the settings that are set, as words; blank for none."""
    return " and ".join(name for name in names if setting(env, name))


def state_of_brapi(env: Environment) -> Path:
    """The folder of what comes from one Brapi: the instance, its quotes, the embedded MongoDB.

    An address other than Brapi's own has a folder of its own: prices there may be made up too.
    """
    if brapi_is_sandbox(env):
        return state_folder(env) / "sandbox"
    address = setting(env, "BRAPI_BASE_URL", BRAPI).rstrip("/")
    return state_folder(env) / ("brapi" if address == BRAPI else re.sub(r"\W+", "-", address))


def stand_ins_file(env: Environment) -> Path:
    """What a running deployment adds to the settings of `env`: a JSON object of variables."""
    return state_of_brapi(env) / "stand-ins.json"


def refuse_made_up_prices(env: Environment) -> None:
    """Keeps made-up prices out of a database and a broker that are configured.

    Raises:
        SettingError: they would get there, and PUBLISH_MADE_UP_PRICES is not `true`.
    """
    real = configured(env, MONGO + KAFKA)
    if brapi_is_sandbox(env) and real and setting(env, PUBLISH).lower() != "true":
        raise SettingError(
            f"{real} {'are' if ' and ' in real else 'is'} set, but the prices would be made up "
            f"because BRAPI_TOKEN is not set: set BRAPI_TOKEN, unset {real}, or set "
            f"{PUBLISH}=true to write made-up prices there."
        )


def _check_free(ports: dict[str, int]) -> None:
    with contextlib.ExitStack() as held:
        for name, number in ports.items():
            try:
                held.enter_context(socket.create_server(("127.0.0.1", number)))
            except OSError as error:
                raise SettingError(
                    f"Port {number} cannot be used ({os.strerror(error.errno or 0)}): "
                    f"set {name} to a free port."
                ) from None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Makes sure that this is the only supervisor on its folder, while the context lasts.

    Yields:
        Whether the one before was killed: its mark is still there.

    Raises:
        AlreadyRunningError: it is not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "supervisor.pid").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunningError(
                f"Process {file.read()} is already using {folder}: stop it, or set "
                "MARKET_DATA_HOME to another folder."
            ) from None
        file.seek(0)
        was_killed = file.read() != ""
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield was_killed
        file.truncate(0)


def _run(deployment: Deployment) -> int:
    """Runs the deployment until it is told to stop (0) or a part of it ends (1)."""
    stop_on_signals()
    report = threading.Thread(
        target=report_runs, args=(deployment.address, time.time(), say), daemon=True
    )
    try:
        deployment.start()
        report.start()
        deployment.watch()
    except KeyboardInterrupt:
        say("Stopping.")
        return 0
    except ChildDiedError as died:
        say(f"{died}\nStopping the rest.")
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        deployment.stop()
        say("Stopped.")


def main() -> int:
    """Runs the deployment in the foreground."""
    try:
        env = environment()
        sys.stderr.writelines(f"{sentence}\n" for sentence in misspelled(env))
        with _alone(state_folder(env)) as was_killed:
            deployment = Deployment(env)
            if was_killed and (closed := close_orphans(state_of_brapi(env) / "dagster")):
                say(f"{closed} run(s) in progress when `make dev` was killed are marked as failed.")
            return _run(deployment)
    except (SettingError, WatchlistError, AlreadyRunningError) as error:
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        sys.stderr.write(f"{error.filename} cannot be used: {error.strerror}.\n")
    return 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is stopped. A thread that still waits for the webserver is left behind: taking the
    # interpreter down around it can crash it (status -11).
    os._exit(status)
