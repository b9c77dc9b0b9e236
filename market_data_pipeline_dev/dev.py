"""The supervisor of `make dev`: Dagster, and stand-ins for what is not configured.

It ends all that it started when it is told to stop, when a part of it dies, and when it is killed.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from market_data_pipeline import ClearError
from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.publication.client import given_properties
from market_data_pipeline.settings import SettingError, Settings, misspelled
from market_data_pipeline_dev import mongo
from market_data_pipeline_dev.kafka import embedded_kafka
from market_data_pipeline_dev.process import Child, ChildDiedError, say, stop_on_signals
from market_data_pipeline_dev.report import news
from market_data_pipeline_dev.settings import (
    brapi_is_sandbox,
    read_settings,
    stand_ins_file,
    state_of_brapi,
)

MONGO = ("MONGO_URI", "MONGO_HOST")
KAFKA = ("KAFKA_BOOTSTRAP_SERVERS",)
PUBLISH = "PUBLISH_MADE_UP_PRICES"
NO_LOGIN = "It has no login: whoever reaches it, even a web page in your browser, can launch runs."
# Not the warning at every start that asks for nothing.
IS_NEWS = re.compile(rb"(?!.*No cursor for event type)").match


class Deployment:
    """Dagster and its stand-ins, as the settings ask for them.

    Raises a ClearError if it could not be started so.
    """

    def __init__(self, given: Settings) -> None:
        refuse_made_up_prices(given)
        given_properties(given)  # raises if a property may not be set
        self._given, self._state = given, state_of_brapi(given)
        self._added, self.children = dict[str, str](), list[Child]()
        self._parts = contextlib.ExitStack()
        needed = ["DAGSTER_PORT"]
        if brapi_is_sandbox(given):
            needed.append("SANDBOX_PORT")
            self._tickers = [*load_watchlist(given.watchlist_file).tickers]
        if not configured(given, MONGO):
            needed.append("EMBEDDED_MONGO_PORT")
        _check_free(given, needed)
        if not Path("workspace.yaml").exists():
            raise SettingError("There is no workspace.yaml here: run it in the repository's root.")
        self.address = f"http://127.0.0.1:{given.dagster_port}"

    def start(self) -> None:
        """Starts the stand-ins, then Dagster, and says what stands in for what."""
        say(f"Market data pipeline, development deployment. Its state is in {self._state}")
        self._state.mkdir(parents=True, exist_ok=True)
        say(f"  Brapi    {self._start_brapi()}")
        say(f"  MongoDB  {self._start_mongo()}")
        say(f"  Kafka    {self._start_kafka()}")
        say(f"  Dagster  {self.address}, its log is {self._start_dagster()}")
        say(f"           {NO_LOGIN}")

    def stop(self) -> None:
        """Ends everything, the last started first, each within a bound."""
        stand_ins_file(self._given).unlink(missing_ok=True)
        self._parts.close()

    def _start_brapi(self) -> str:
        if not brapi_is_sandbox(self._given):
            return self._given.brapi_base_url
        port = str(self._given.sandbox_port)
        command = [sys.executable, "-m", "brapi_sandbox", "--port", port]
        command += ["--plan", self._given.brapi_plan, "--tickers", ",".join(self._tickers)]
        log = self._state.parent / "sandbox.log"
        self._watch_over(Child("The Brapi sandbox", command, None, log))
        address = f"http://127.0.0.1:{port}"
        self._added |= {"BRAPI_BASE_URL": address, "BRAPI_TOKEN": "sandbox"}
        if not configured(self._given, ["B3_HISTORY_URL"]):
            self._added["B3_HISTORY_URL"] = f"{address}/InstDados/SerHist"
        if not configured(self._given, [*MONGO, *KAFKA, PUBLISH]):
            self._added[PUBLISH] = "true"
        for name in ("no_proxy", "NO_PROXY"):
            self._added[name] = ",".join(filter(None, ["127.0.0.1", os.environ.get(name)]))
        return f"sandbox with made-up prices at {address}, because BRAPI_TOKEN is not set"

    def _start_mongo(self) -> str:
        if real := configured(self._given, MONGO):
            return f"as {real} says"
        port = self._given.embedded_mongo_port
        log = self._state.parent / "mongo.log"
        self._watch_over(mongo.start(self._state / "mongo", port, log))
        address = self._added["MONGO_URI"] = f"mongodb://127.0.0.1:{port}"
        return f"embedded, over SQLite, at {address}, because MONGO_URI is not set"

    def _start_kafka(self) -> str:
        if configured(self._given, KAFKA):
            return self._given.kafka_bootstrap_servers
        address = self._parts.enter_context(embedded_kafka())
        self._added["KAFKA_BOOTSTRAP_SERVERS"] = address
        if not self._given.kafka_updated_at_format:
            self._added["KAFKA_UPDATED_AT_FORMAT"] = "epoch"  # no service reads the topic
        return f"embedded, in memory, at {address}, because KAFKA_BOOTSTRAP_SERVERS is not set"

    def _start_dagster(self) -> Path:
        home, log = self._state / "dagster", self._state / "dagster.log"
        home.mkdir(exist_ok=True)
        shutil.copy("dagster.yaml", home)
        if Path("dg.toml").exists():
            shutil.copy("dg.toml", self._state)  # `dg` runs there too
        self._added["DAGSTER_HOME"] = str(home)
        stand_ins_file(self._given).write_text(json.dumps(self._added))
        command = [sys.executable, "-W", "ignore", "-m", "dagster", "dev", "-h", "127.0.0.1"]
        command += ["-p", str(self._given.dagster_port), "--log-level", "warning"]
        command += ["-w", str(Path("workspace.yaml").absolute())]
        # In a folder of its own, as it would read `.env` once more here.
        env, folder = os.environ | self._added, self._state
        self._watch_over(Child("Dagster", command, env, log, IS_NEWS, signal.SIGINT, 20, folder))
        return log

    def _watch_over(self, child: Child) -> None:
        self._parts.callback(child.stop)
        self.children.append(child)


def configured(given: Settings, names: Sequence[str]) -> str:
    """Those of the settings that are set, as words; blank for none."""
    return " and ".join(filter(given.is_set, names))


def refuse_made_up_prices(given: Settings) -> None:
    """Raises a SettingError if made-up prices would reach a configured database or broker."""
    real = configured(given, MONGO + KAFKA)
    if brapi_is_sandbox(given) and real and not given.publish_made_up_prices:
        raise SettingError(
            f"{real} {'are' if ' and ' in real else 'is'} set, but the prices would be made up "
            f"because BRAPI_TOKEN is not set: set BRAPI_TOKEN, unset {real}, or set "
            f"{PUBLISH}=true to write made-up prices there."
        )


def _check_free(given: Settings, names: Sequence[str]) -> None:
    with contextlib.ExitStack() as held:
        for name in names:
            port = getattr(given, name.lower())
            try:
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError as error:
                raise SettingError(
                    f"Port {port} cannot be used ({os.strerror(error.errno or 0)}): "
                    f"set {name} to a free port."
                ) from None


def _alone(folder: Path) -> contextlib.AbstractContextManager[BaseFileLock]:
    """Keeps a second supervisor out of the folder, while the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder / "lock").acquire(blocking=False)
    except Timeout:
        raise SettingError(
            f"Another `make dev` is using {folder}: stop it, or set MARKET_DATA_HOME to another "
            "folder."
        ) from None


def _close_orphans(home: Path) -> None:
    """Marks the runs as failed that ended with a killed supervisor; others would wait for them."""
    import dagster as dg
    from dagster import DagsterRunStatus as Status

    unfinished = [Status.NOT_STARTED, Status.STARTING, Status.STARTED, Status.CANCELING]
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for run in (orphans := instance.get_runs(dg.RunsFilter(statuses=unfinished))):
            instance.report_run_failed(run, "`make dev` was killed while the run was under way.")
    if orphans:
        say(f"{len(orphans)} run(s) in progress when `make dev` was killed are marked as failed.")


def _run(deployment: Deployment) -> int:
    """Runs the deployment until it is told to stop (0) or a part of it ends (1)."""
    stop_on_signals()
    status, started = 0, time.time()
    try:
        deployment.start()
        for line in news(deployment.address, started):
            if line:
                say(line)
            for child in deployment.children:
                child.check()
    except KeyboardInterrupt:
        say("Stopping.")
    except ChildDiedError as died:
        say(f"{died}\nStopping the rest.")
        status = 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        deployment.stop()
        say("Stopped.")
    return status


def main() -> int:
    """Runs the deployment in the foreground."""
    try:
        given = read_settings()
        for name, sentence in misspelled(os.environ).items():
            sys.stderr.write(f"{sentence}\n")
            del os.environ[name]  # Dagster's processes need not say it too
        with _alone(state_of_brapi(given).parent):
            deployment = Deployment(given)
            if stand_ins_file(given).exists():
                _close_orphans(state_of_brapi(given) / "dagster")
            return _run(deployment)
    except ClearError as error:
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        sys.stderr.write(f"{error.filename} cannot be used: {error.strerror}.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
