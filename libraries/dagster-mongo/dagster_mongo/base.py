"""What the I/O managers have in common: where an asset is, and what a run says of a store."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Literal, NamedTuple

import dagster as dg
from pydantic import Field
from pymongo.collection import Collection

from dagster_mongo.documents import CODEC, Document
from dagster_mongo.errors import MongoSettingsError
from dagster_mongo.partitions import Slice, slice_of
from dagster_mongo.preparation import prepare
from dagster_mongo.reading import Reading
from dagster_mongo.resource import MongoResource
from dagster_mongo.schemas import Schema, Stored
from dagster_mongo.settings import Settings
from dagster_mongo.store import delete_others, insert_anew, upsert
from dagster_mongo.translation import translated

__all__ = ["Content", "MongoIOManager", "Place"]

Context = dg.InputContext | dg.OutputContext
Fields = dict[str, Any]
_SEPARATOR = "."


class Place(NamedTuple):
    """Where and how an asset is kept."""

    settings: Settings
    database: str
    asset: str
    former: str | None
    part: Slice | None


class Content(NamedTuple):
    """What a store writes.

    Attributes:
        documents: The rows, encoded.
        columns: At least the partition columns, as BSON values.
        stored: What it means for the kept dtypes; None if none are kept.
        table_columns: The columns and their dtypes, for the UI.
    """

    documents: Sequence[Document]
    columns: Mapping[str, list[Any]]
    stored: Stored | None
    table_columns: Mapping[str, str]


class MongoIOManager(dg.ConfigurableIOManager):
    """The base of this library's I/O managers; use one of those."""

    mongo: dg.ResourceDependency[MongoResource]
    schema_: str | None = Field(
        default=None,
        alias="schema",
        description="The database of assets whose metadata has no `schema`. Default: the"
        " resource's.",
    )
    key_prefix: Literal["collection", "database"] = Field(
        default="collection",
        description="What the prefix of an asset key names: a part of the collection's name"
        " (`shop.prices`), or the database, in place of the resource's.",
    )

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store an output in its collection.

        Raises:
            MongoSettingsError: The asset's metadata makes no sense.
            MongoFrameError: The value cannot be stored; nothing was written.
            MongoBulkWriteError: The server refused some documents; the others are written.
            MongoOperationError: The server refused a command, such as an index.
            MongoConnectionError: There is no server, or it was lost; storing again completes it.
        """
        started = perf_counter()
        place = self._place(context, context.definition_metadata)
        with translated(self.mongo.address):
            collection = self._collection(place)
            content = self._content(obj, place, collection, context.run_id)
            rows_of = place.part.count_rows(content.columns) if place.part else {}
            counts = self._store(place, collection, content)
        run = {
            **counts,
            "rows": len(content.documents),
            "bytes": sum(len(document.body) for document in content.documents),
            "seconds": perf_counter() - started,
        }
        several = len(rows_of) > 1
        context.add_output_metadata({f"run/{k}": v for k, v in run.items()} if several else run)
        context.add_output_metadata(_described(place, content))
        if place.settings.mode == "replace" and not place.part:
            context.add_output_metadata({"dagster/row_count": len(content.documents)})
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
        query = reading.filter(place.part.query() if place.part else {})
        with translated(self.mongo.address):
            collection = self._collection(place)
            schema = self._schema(place, collection)
            schema.claim(place.former, exclusive=False)
            return self._load(collection, query, reading, schema, place.settings)

    @abstractmethod
    def _content(
        self, obj: Any, place: Place, collection: Collection[Fields], run_id: str
    ) -> Content:
        """Encode what is to be stored."""

    @abstractmethod
    def _load(
        self,
        collection: Collection[Fields],
        query: Fields,
        reading: Reading,
        schema: Schema,
        settings: Settings,
    ) -> Any:
        """Load what matches a query."""

    @property
    @abstractmethod
    def _library(self) -> str:
        """Whose dtypes are kept."""

    def _store(
        self, place: Place, collection: Collection[Fields], content: Content
    ) -> Counter[str]:
        settings, part = place.settings, place.part
        schema = self._schema(place, collection)
        schema.claim(place.former, exclusive=settings.mode == "replace")
        schema.prepare(content.stored) if content.stored else schema.register()
        prepare(collection, settings, part.fields if part else ())
        query = part.query() if part else {}
        if settings.time_series:
            counts = insert_anew(collection, query, content.documents, settings.batch_size)
        else:
            counts = upsert(collection, content.documents, settings)
            if settings.mode == "replace":
                counts["deleted"] = delete_others(
                    collection, query, content.documents, settings.batch_size
                )
        if content.stored:
            schema.finish(content.stored)
        return counts

    def _place(self, context: Context, metadata: Mapping[str, Any]) -> Place:
        path = context.asset_key.path if context.has_asset_key else []
        database = metadata.get("schema") or self.schema_
        if not database and self.key_prefix == "database" and len(path) > 1:
            database, path = _SEPARATOR.join(path[:-1]).replace(_SEPARATOR, "-"), path[-1:]
        if database is not None and not isinstance(database, str):
            raise MongoSettingsError(f"schema is the name of a database, not {database!r}.")
        settings = Settings.from_metadata(metadata, _SEPARATOR.join(path))
        former = "_".join(path) if len(path) > 1 and "mongo/collection" not in metadata else None
        asset = context.asset_key.to_user_string() if context.has_asset_key else ""
        part = slice_of(context, metadata.get("partition_expr"))
        return Place(settings, database or self.mongo.database, asset, former, part)

    def _collection(self, place: Place) -> Collection[Fields]:
        database = self.mongo.get_client()[place.database]
        return database[place.settings.collection].with_options(
            codec_options=CODEC,
            write_concern=place.settings.write_concern,
            read_concern=place.settings.read_concern,
        )

    def _schema(self, place: Place, collection: Collection[Fields]) -> Schema:
        return Schema(collection.database, place.settings.collection, place.asset, self._library)


def others_of(collection: Collection[Fields], part: Slice | None, replaces: bool) -> Any:
    """Tells whether documents match a query, besides those that a store replaces."""

    def others(query: Mapping[str, Any]) -> bool:
        left = {"$and": [query, {"$nor": [part.query()]}]} if part and replaces else query
        return collection.find_one(left, {"_id": True}) is not None

    return others


def _described(place: Place, content: Content) -> dict[str, Any]:
    columns = [dg.TableColumn(name, type=dtype) for name, dtype in content.table_columns.items()]
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
