"""What the I/O managers have in common: where an asset is, and what a run says of a store."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, NamedTuple

import dagster as dg
from pydantic import Field
from pymongo import ReadPreference
from pymongo.collection import Collection

from dagster_mongo.codec import CODEC
from dagster_mongo.documents import Document, encode
from dagster_mongo.errors import MongoSettingsError
from dagster_mongo.indexes import ensure_indexes
from dagster_mongo.partitions import Slice, slice_of
from dagster_mongo.resource import MongoResource
from dagster_mongo.schemas import Schema, Stored
from dagster_mongo.settings import PREFIX, Reading, Settings, without_prefix
from dagster_mongo.store import (
    delete_others,
    documents_there,
    numbered,
    refuse_ids_of_others,
    upsert,
)
from dagster_mongo.translation import translated

__all__ = ["MongoIOManager", "Place", "Rows"]

Context = dg.InputContext | dg.OutputContext
Fields = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


class Place(NamedTuple):
    """Where and how an asset is kept."""

    settings: Settings
    database: str
    asset: str
    part: Slice | None

    @property
    def replaces(self) -> bool:
        """Whether a store deletes what it does not bring."""
        return self.settings.mode == "replace"


class MongoIOManager(dg.ConfigurableIOManager):
    """The base of this library's I/O managers; use one of those."""

    mongo: dg.ResourceDependency[MongoResource]
    database: str | None = Field(
        default=None,
        description="The database of assets whose metadata names none. Default: the resource's.",
    )
    schema_: str | None = Field(
        default=None,
        alias="schema",
        description="The same as `database`, by the name of Dagster's other I/O managers.",
    )

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store an output in its collection.

        Raises:
            MongoSettingsError: The asset's metadata makes no sense.
            MongoFrameError: The value cannot be stored; nothing was written.
            MongoBulkWriteError: The server refused some documents; the others are written.
            MongoOperationError: The server refused a command.
            MongoConnectionError: There is no server, or it was lost; storing again completes it.
        """
        started = perf_counter()
        metadata = context.definition_metadata
        for name in without_prefix(metadata):
            context.log.warning(f"Metadata {name!r} does nothing: its name is {PREFIX + name!r}.")
        place = self._place(context, metadata)
        if place.replaces and not place.part and metadata.get("partition_expr"):
            raise MongoSettingsError(
                "This run has no partition, and mongo/mode 'replace' would delete all partitions:"
                " launch it with one."
            )
        rows, stored = self._content(obj, place)
        documents = encode(rows, place.settings)
        rows_of = place.part.count_rows(rows) if place.part else {}
        with translated(self.mongo.address):
            counts = self._store(context, place, documents, stored)
        run = {
            **counts,
            "rows": len(documents),
            "bytes": sum(len(document.body) for document in documents),
            "seconds": perf_counter() - started,
        }
        several = len(rows_of) > 1
        context.add_output_metadata({f"run/{k}": v for k, v in run.items()} if several else run)
        context.add_output_metadata(_described(place, stored))
        if place.replaces and not place.part:
            context.add_output_metadata({"dagster/row_count": len(documents)})
        _add_row_counts(context, rows_of)

    def load_input(self, context: dg.InputContext) -> Any:
        """Load an asset, or the partitions of it that the input covers.

        Raises:
            MongoSettingsError: The asset's or the input's metadata makes no sense.
            MongoLoadError: A stored value does not fit its column, or there is no such column.
            MongoConnectionError: There is no server, or it was lost.
        """
        metadata = context.upstream_output.definition_metadata if context.upstream_output else {}
        place = self._place(context, metadata)
        reading = Reading.from_metadata(context.definition_metadata)
        with translated(self.mongo.address):
            return self._load(self._collection(place), place, reading)

    @abstractmethod
    def _content(self, obj: Any, place: Place) -> tuple[Rows, Stored | None]:
        """The rows of a value, and what they mean for the kept dtypes; None if none are kept."""

    @abstractmethod
    def _load(self, collection: Collection[Fields], place: Place, reading: Reading) -> Any:
        """Load what an input asks for."""

    @property
    @abstractmethod
    def _library(self) -> str:
        """Whose dtypes are kept."""

    def _store(
        self,
        context: dg.OutputContext,
        place: Place,
        documents: Sequence[Document],
        stored: Stored | None,
    ) -> Counter[str]:
        settings, part = place.settings, place.part
        # What a store has just written, a secondary may not have yet.
        collection = self._collection(place, ReadPreference.PRIMARY)
        partitions = part.query() if part else {}
        if part and settings.key in ((), ("_id",)):
            refuse_ids_of_others(collection, documents, partitions)
        schema = self._schema(collection, place)
        if place.replaces:
            schema.claim(collection)
        if stored:
            schema.prepare(stored, _others_of(collection, partitions, place.replaces))
        refused = ensure_indexes(collection, settings.indexes, part.field if part else None)
        if refused:
            context.log.warning(
                f"The collection {collection.name!r} lacks indexes that this user may not make, or"
                f" has others in their place: {'; '.join(refused)}. The data is stored without."
            )
        there = documents_there(collection, partitions) if place.replaces else {}
        if stored and place.replaces:  # only a DataFrame has an order that has to come back
            documents = numbered(documents, there)
        counts = upsert(collection, documents, settings, _managed(settings, context.run_id))
        if place.replaces:
            counts["deleted"] = delete_others(collection, partitions, documents, there)
        if stored:
            schema.finish(stored)
        return counts

    def _place(self, context: Context, metadata: Mapping[str, Any]) -> Place:
        path = context.asset_key.path if context.has_asset_key else []
        settings = Settings.from_metadata(metadata, ".".join(path))
        part = slice_of(context, metadata.get("partition_expr"))
        key = settings.key
        if part and key and key != ("_id",) and part.field not in key:
            raise MongoSettingsError(
                f"mongo/key {list(key)} lacks the partition column {part.field!r}: the same key in"
                f" two partitions would be one document. Set it to {[*key, part.field]}."
            )
        named = settings.database or self.database or self.schema_ or self.mongo.database_name
        return Place(settings, named, context.asset_key.to_user_string() if path else "", part)

    def _collection(self, place: Place, read_preference: Any = None) -> Collection[Fields]:
        database = self.mongo.get_client().get_database(
            place.database, read_preference=read_preference
        )
        collection = database[place.settings.collection].with_options(codec_options=CODEC)
        if not collection.write_concern.acknowledged:
            raise MongoSettingsError("w=0 would hide every failed write: remove it, or raise it.")
        return collection

    def _schema(self, collection: Collection[Fields], place: Place) -> Schema:
        return Schema(collection.database, collection.name, place.asset, self._library)


def _managed(settings: Settings, run_id: str) -> Fields:
    """The fields that a store sets, in this order."""
    values = {settings.run_id: run_id, settings.created_at: datetime.now(UTC)}
    return {name: value for name, value in values.items() if name}


def _others_of(collection: Collection[Fields], partitions: Fields, replaces: bool) -> Any:
    """Tells whether documents match a query, besides those that a store replaces."""

    def others(query: Mapping[str, Any]) -> bool:
        left = {"$and": [query, {"$nor": [partitions]}]} if partitions and replaces else query
        return collection.find_one(left, {"_id": True}) is not None

    return others


def _described(place: Place, stored: Stored | None) -> dict[str, Any]:
    fields = stored.fields if stored else {}
    columns = [dg.TableColumn(name, type=str(field.dtype)) for name, field in fields.items()]
    return {
        "collection": place.settings.collection,
        "dagster/storage_kind": "mongodb",
        "dagster/table_name": f"{place.database}.{place.settings.collection}",
        **({"dagster/column_schema": dg.TableSchema(columns)} if columns else {}),
    }


def _add_row_counts(context: dg.OutputContext, rows_of: Mapping[str, int]) -> None:
    """Tell each partition's own number of rows."""
    if len(rows_of) == 1:
        context.add_output_metadata({"dagster/partition_row_count": next(iter(rows_of.values()))})
        return
    for partition, rows in rows_of.items():
        counted = {"dagster/partition_row_count": rows, "rows": rows}
        context.step_context.add_asset_metadata(counted, context.asset_key, partition)
