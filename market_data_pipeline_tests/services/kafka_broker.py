"""Apache Kafka for the tests: real brokers on loopback, without containers.

The jars come from Maven Central, into a cache of their own, the first time they are needed; the
machine's Java runs them in KRaft mode, each broker being a controller too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import ClusterMetadata  # type: ignore[attr-defined]

from market_data_pipeline_tests.supervised import free_ports

HERE = Path(__file__).parent
_START_SECONDS = 180
_CLUSTER_ID = "bWFya2V0LWRhdGEtdGVzdA"
_JAVA_OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


class ServiceUnavailableError(Exception):
    """A program that a service needs is missing, or what it is made of is out of reach."""


def run(folder: Path, *command: str) -> str:
    """What a command says that downloads or builds what the tests need.

    Raises:
        ServiceUnavailableError: it is not installed, or it fails.
    """
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    except FileNotFoundError:
        said = f"`{command[0]}` is not installed: CONTRIBUTING.md says what the tests need."
        raise ServiceUnavailableError(said) from None
    if ended.returncode != 0:
        said = f"{ended.stdout}{ended.stderr}"[-2000:]
        raise ServiceUnavailableError(f"`{' '.join(command)}` failed:\n{said}")
    return ended.stdout


def maven(*arguments: str, folder: Path = HERE) -> None:
    """Runs Maven on the pom of `folder`, with a local repository of the tests' own; see `run`."""
    repository = f"-Dmaven.repo.local={cache() / 'maven'}"
    run(folder, "mvn", "-B", "-ntp", "-q", repository, *arguments)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One process at a time fills the cache, as Maven's repository needs it; not to be nested."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@alone()
def class_path(folder: Path = HERE) -> str:
    """The jars that the pom of `folder` names, downloaded if need be; see `run`."""
    version = hashlib.sha256((folder / "pom.xml").read_bytes()).hexdigest()[:16]
    listing = cache() / f"class-path-{version}.txt"
    if not listing.exists():
        maven("dependency:build-classpath", f"-Dmdep.outputFile={listing}", folder=folder)
    return listing.read_text()


def java_command(main_class: str, *arguments: str) -> list[str]:
    """The command line that runs a class of the broker's jars."""
    logging = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"
    return ["java", *_JAVA_OPTIONS, logging, "-cp", class_path(), main_class, *arguments]


def kafka_configs(bootstrap_servers: str, *options: str) -> None:
    """Runs `kafka-configs.sh`."""
    command = java_command("kafka.admin.ConfigCommand", *options)
    subprocess.run(
        [*command, "--bootstrap-server", bootstrap_servers], check=True, stdout=subprocess.DEVNULL
    )


class KafkaBroker:
    """One process of a cluster; it can be killed and started again on the same ports and disk."""

    def __init__(self, folder: Path, properties: Mapping[str, str]) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True)
        self.log = folder / "server.log"
        self._properties = folder / "server.properties"
        lines = [f"{name}={value}" for name, value in properties.items()]
        self._properties.write_text("\n".join([*lines, f"log.dirs={folder / 'data'}"]))
        self._process: subprocess.Popen[bytes] | None = None

    def format(self, cluster_id: str) -> subprocess.Popen[bytes]:
        """Starts preparing the disk for a cluster; the process ends when it is done."""
        arguments = ["format", "-t", cluster_id, "-c", str(self._properties)]
        return self._java("kafka.tools.StorageTool", arguments)

    def start(self) -> None:
        """Starts the process and does not wait for it to serve."""
        self._process = self._java("kafka.Kafka", [str(self._properties)])

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        """Shuts the broker down in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kills the broker as the machine's failure would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _java(self, main_class: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                java_command(main_class, *arguments), stdout=log, stderr=log, cwd=self.folder
            )


class KafkaCluster:
    """Brokers that start and stop together; a context manager.

    Args:
        folder: holds their settings, logs and data; made here.
        brokers: how many.
        properties: server properties, over those of a cluster that replicates its own topics
            to every broker.
        extra_listener: protocol of a further listener (`SASL_SSL`), at `extra_address`; the
            properties have to say how it works. The brokers use the plain one among themselves.
        extra_advertised: where that listener tells clients to go, instead of `extra_address`.
    """

    def __init__(
        self,
        folder: Path,
        brokers: int = 1,
        properties: Mapping[str, str] | None = None,
        extra_listener: str | None = None,
        extra_advertised: str | None = None,
    ) -> None:
        ports = free_ports(2 * brokers + 1)
        clients, controllers = ports[:brokers], ports[brokers:-1]
        self.bootstrap_servers = ",".join(f"127.0.0.1:{port}" for port in clients)
        self.extra_address = f"127.0.0.1:{ports[-1]}"
        prefix = f",{extra_listener}://" if extra_listener else ""
        extra = prefix and prefix + self.extra_address
        advertised = prefix and prefix + (extra_advertised or self.extra_address)
        voters = ",".join(f"{n}@127.0.0.1:{port}" for n, port in enumerate(controllers, 1))
        self.brokers = {
            number: KafkaBroker(
                folder / f"broker-{number}",
                {
                    "process.roles": "broker,controller",
                    "node.id": str(number),
                    "controller.quorum.voters": voters,
                    "listeners": f"PLAINTEXT://127.0.0.1:{client},"
                    f"CONTROLLER://127.0.0.1:{controller}{extra}",
                    "advertised.listeners": f"PLAINTEXT://127.0.0.1:{client}{advertised}",
                    "controller.listener.names": "CONTROLLER",
                    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
                    + (f",{extra_listener}:{extra_listener}" if extra_listener else ""),
                    "auto.create.topics.enable": "false",
                    "default.replication.factor": str(brokers),
                    "min.insync.replicas": str(max(1, brokers - 1)),
                    "offsets.topic.replication.factor": str(brokers),
                    "offsets.topic.num.partitions": "1",
                    "transaction.state.log.replication.factor": str(brokers),
                    "transaction.state.log.min.isr": str(max(1, brokers - 1)),
                    "transaction.state.log.num.partitions": "3",
                    "group.initial.rebalance.delay.ms": "0",
                    # A killed broker is replaced as a leader after this, not after 9 s.
                    "broker.session.timeout.ms": "3000",
                    "broker.heartbeat.interval.ms": "500",
                    **(properties or {}),
                },
            )
            for number, (client, controller) in enumerate(zip(clients, controllers, strict=True), 1)
        }

    def __enter__(self) -> Self:
        formatting = [broker.format(_CLUSTER_ID) for broker in self.brokers.values()]
        if any(process.wait(timeout=_START_SECONDS) for process in formatting):
            raise RuntimeError(self._logs())
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, *numbers: int) -> None:
        """Starts the brokers of these numbers, or all, and waits until they serve."""
        for number in numbers or self.brokers:
            self.brokers[number].start()
        self._await_brokers()

    def kill(self) -> None:
        """Kills every broker."""
        for broker in self.brokers.values():
            broker.kill()

    def _await_brokers(self) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                if self._is_whole(producer.list_topics(timeout=1)):
                    return
            except KafkaException:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"Kafka did not start within {_START_SECONDS} s.\n{self._logs()}")

    def _is_whole(self, seen: ClusterMetadata) -> bool:
        """Whether every running broker is there and, if that is all, every replica in sync."""
        running = sum(broker.is_running for broker in self.brokers.values())
        if len(seen.brokers) != running:
            return False
        partitions = [one for topic in seen.topics.values() for one in topic.partitions.values()]
        in_sync = all(one.leader >= 0 and len(one.isrs) == len(one.replicas) for one in partitions)
        return in_sync or running < len(self.brokers)

    def _logs(self) -> str:
        return "\n".join(broker.log.read_text()[-3000:] for broker in self.brokers.values())


def cache() -> Path:
    """Where the tests keep what they have downloaded and compiled."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "market-data-pipeline"
