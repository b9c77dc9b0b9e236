"""Stores and loads as a run does, without the time that a run takes."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import dagster as dg

from dagster_mongo import MongoPandasIOManager, MongoResource
from dagster_mongo.base import MongoIOManager

from .conftest import DATABASE, values

# A context makes each of its own if it is given none, which takes a tenth of a second.
RESOURCES: Any = dg.build_resources({}).__enter__()
INSTANCE = dg.DagsterInstance.ephemeral()


@dataclass
class Direct:
    """An asset in a collection of its own, stored and loaded through an I/O manager."""

    uri: str
    kind: type[MongoIOManager] = MongoPandasIOManager
    metadata: dict[str, Any] = field(default_factory=dict)
    partitions: dg.PartitionsDefinition | None = None
    asset: str = "some_asset"
    name: str = field(default_factory=lambda: f"c{uuid4().hex}")
    fields: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mongo = MongoResource(uri=self.uri, database=DATABASE)
        self.manager = self.kind(mongo=mongo, **self.fields)
        self.mongo = self.manager.mongo

    def _context(self, key: str | None) -> dict[str, Any]:
        context: dict[str, Any] = {"asset_key": dg.AssetKey.from_user_string(self.asset)}
        if self.partitions and key is not None:
            context["asset_partitions_def"] = self.partitions
            context["asset_partition_key_range"] = dg.PartitionKeyRange(key, key)
            context["partition_key"] = key
        return context

    def _metadata(self) -> dict[str, Any]:
        return {"mongo/collection": self.name, **self.metadata}

    def store(self, value: object, key: str | None = None, run_id: str = "run") -> dict[str, Any]:
        context = dg.build_output_context(
            definition_metadata=self._metadata(),
            run_id=run_id,
            resources=RESOURCES,
            **self._context(key),
        )
        self.manager.handle_output(context, value)
        return values(context.get_logged_metadata())

    def load(self, key: str | None = None, **reading: Any) -> Any:
        upstream = dg.build_output_context(
            definition_metadata=self._metadata(),
            run_id="run",
            resources=RESOURCES,
            **self._context(key),
        )
        context = dg.build_input_context(
            upstream_output=upstream,
            definition_metadata=reading,
            instance=INSTANCE,
            **self._context(key),
        )
        return self.manager.load_input(context)

    def collection(self) -> Any:
        return self.mongo.get_collection(self.name)

    def clean(self) -> None:
        self.collection().drop()
        self.empty()

    def empty(self) -> None:
        self.collection().delete_many({})
        schemas = self.mongo.get_collection("dagster_mongo_schemas")
        schemas.delete_one({"_id": f"{self.name}:{self.asset}"})
        self.mongo.close()
