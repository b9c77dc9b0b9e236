"""Two engines for one suite: the stand-in, always, and a real MongoDB where there is one."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from pymongo import MongoClient
from pymongo.collection import Collection

from dagster_mongo import MongoPandasIOManager, MongoResource
from dagster_mongo.base import MongoIOManager

DATABASE = "dagster_mongo_tests"
NO_REAL_MONGO = "real MongoDB: set TEST_MONGO_URI to a server's mongodb:// address"


@contextmanager
def stand_in_server(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("nx-27017")), "--db", str(folder / "nx.db")]
    command += ["--pid-file", str(folder / "nx.pid")]  # else only one can run on a machine
    with (folder / "nx.log").open("wb") as log:
        server = subprocess.Popen([*command, "-p", str(port)], stdout=log, stderr=log)
    try:
        uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
        with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=20_000) as client:
            client.admin.command("ping")
        yield uri, server
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stand_in_server(tmp_path_factory.mktemp("nx")) as (uri, _):
        yield uri


@pytest.fixture(scope="session")
def real_mongo() -> str:
    if uri := os.environ.get("TEST_MONGO_URI"):
        return uri
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(NO_REAL_MONGO)
    pytest.skip(NO_REAL_MONGO)


@pytest.fixture(params=["stand_in", pytest.param("real_mongo", marks=pytest.mark.services)])
def uri(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@dataclass
class Store:
    """One asset in one collection: stores frames through Dagster and loads them back."""

    uri: str
    name: str = field(default_factory=lambda: f"c{uuid4().hex}")
    partitions: dg.PartitionsDefinition | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    kind: type[MongoIOManager] = MongoPandasIOManager
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)

    @property
    def is_stand_in(self) -> bool:
        return self.uri != os.environ.get("TEST_MONGO_URI")

    @property
    def mongo(self) -> MongoResource:
        return MongoResource(uri=self.uri, database=DATABASE)

    @property
    def resources(self) -> dict[str, Any]:
        return {"io_manager": self.kind(mongo=self.mongo)}

    @contextmanager
    def collection(self) -> Iterator[Collection[dict[str, Any]]]:
        with MongoClient[dict[str, Any]](self.uri) as client:
            yield client[DATABASE][self.name]

    def documents(self) -> dict[Any, dict[str, Any]]:
        with self.collection() as collection:
            return {document["_id"]: document for document in collection.find()}

    def asset(self, frame: object = None) -> dg.AssetsDefinition:
        @dg.asset(
            name=self.name,
            partitions_def=self.partitions,
            metadata=self.metadata,
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def stored() -> Any:
            return frame

        return stored

    def run(self, frame: object, keys: Sequence[str] = ()) -> Sequence[dg.AssetMaterialization]:
        """The materializations of a run for no partition, one, or a range from first to last."""
        tags = {}
        if len(keys) > 1:
            tags["dagster/asset_partition_range_start"] = keys[0]
            tags["dagster/asset_partition_range_end"] = keys[-1]
        result = dg.materialize(
            [self.asset(frame)],
            partition_key=keys[0] if len(keys) == 1 else None,
            tags=tags,
            resources=self.resources,
            instance=self.instance,
        )
        return result.asset_materializations_for_node(self.name)

    def store(self, frame: object, *keys: str, **metadata: Any) -> dict[str, Any]:
        self.metadata = {**self.metadata, **{f"mongo/{k}": v for k, v in metadata.items()}}
        return values(self.run(frame, keys)[0].metadata)

    def load(self, *keys: str, columns: list[str] | None = None) -> Any:
        metadata = {"columns": columns} if columns is not None else {}
        partitions = self.partitions if keys else None
        backfill = dg.BackfillPolicy.single_run()
        loaded = []

        @dg.asset(
            ins={"frame": dg.AssetIn(self.name, metadata=metadata)},
            partitions_def=partitions,
            backfill_policy=backfill,
        )
        def reader(frame: Any) -> None:
            loaded.append(frame)

        tags = {}
        if len(keys) > 1:
            tags["dagster/asset_partition_range_start"] = keys[0]
            tags["dagster/asset_partition_range_end"] = keys[-1]
        dg.materialize(
            [self.asset(), reader],
            selection=["reader"],
            partition_key=keys[0] if len(keys) == 1 else None,
            tags=tags,
            resources=self.resources,
            instance=self.instance,
        )
        return loaded[0]


def values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, "value", value) for name, value in metadata.items()}


@pytest.fixture
def store(uri: str) -> Iterator[Store]:
    store = Store(uri)
    yield store
    with store.collection() as collection:
        collection.drop()
        collection.database["dagster_mongo_schemas"].delete_one(
            {"_id": f"{store.name}:{store.name}"}
        )
