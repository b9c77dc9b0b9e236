"""DataFrames in collections. Imports pandas only when one is stored or loaded."""

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import dagster as dg
from bson import CodecOptions
from pymongo.collection import Collection

from dagster_mongo import schemas
from dagster_mongo.documents import to_documents
from dagster_mongo.errors import translated
from dagster_mongo.partitions import slice_of
from dagster_mongo.resource import MongoResource
from dagster_mongo.settings import Settings, columns_of
from dagster_mongo.store import delete_others, ensure_indexes, upsert

if TYPE_CHECKING:
    import pandas as pd

# Dates within this library are naive and in UTC, whatever the client's own options are.
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(document_class=dict, tz_aware=False)
# Dagster checks each of them against the whole range, so their time grows with the square.
_MOST_PARTITIONS_WITH_COUNTS = 100


class MongoPandasIOManager(dg.ConfigurableIOManager):
    """Keeps an asset's DataFrame in a collection, one document for each row, and loads it back.

    How an asset is kept is said by the metadata of its definition; all of it is optional:
    `mongo/collection`, `mongo/mode`, `mongo/key`, `mongo/created_at`, `mongo/run_id`,
    `mongo/volatile`, `mongo/indexes`, `mongo/write_concern`, `mongo/batch_size`, and
    `partition_expr`, which a partitioned asset has to have. An input loads only the columns that
    its metadata `columns` lists. The README explains each.

    Example:
        ```python
        import dagster as dg
        import pandas as pd
        from dagster_mongo import MongoPandasIOManager, MongoResource

        @dg.asset(metadata={"mongo/mode": "upsert", "mongo/key": ["sku"]})
        def products() -> pd.DataFrame:
            return pd.DataFrame({"sku": ["a1", "b2"], "price": [9.5, 12.0]})

        @dg.asset(ins={"products": dg.AssetIn(metadata={"columns": ["price"]})})
        def total(products: pd.DataFrame) -> dg.MaterializeResult:
            return dg.MaterializeResult(metadata={"total": float(products["price"].sum())})

        mongo = MongoResource(uri=dg.EnvVar("MONGO_URI"), database="shop")
        defs = dg.Definitions(
            assets=[products, total],
            resources={"io_manager": MongoPandasIOManager(mongo=mongo)},
        )
        ```
    """

    mongo: dg.ResourceDependency[MongoResource]

    def handle_output(self, context: dg.OutputContext, obj: "pd.DataFrame") -> None:
        """Store a DataFrame.

        Raises:
            MongoSettingsError: The asset's metadata makes no sense.
            MongoFrameError: The DataFrame cannot be stored; nothing was written.
            MongoBulkWriteError: The server refused some documents; the others are written.
            MongoOperationError: The server refused a command, such as an index.
            MongoConnectionError: There is no server, or it was lost; storing again completes it.
        """
        from dagster_mongo import frames

        started = perf_counter()
        settings = _settings(context, context.definition_metadata)
        part = slice_of(context, context.definition_metadata.get("partition_expr"))
        columns = frames.to_columns(obj)
        rows_of = part.count_rows(columns) if part else {}
        documents = to_documents(columns, settings, context.run_id)
        with translated(self.mongo.address):
            collection = self._collection(settings)
            ensure_indexes(collection, settings.indexes, part.fields if part else ())
            counts = upsert(collection, documents, settings)
            if settings.mode == "replace":
                ids = {document.id for document in documents}
                query = part.query() if part else {}
                counts["deleted"] = delete_others(collection, query, ids, settings.batch_size)
            dtypes = frames.dtypes_of(obj)
            schemas.keep(
                collection.database, _schema_name(context, settings), dtypes, replace=len(obj) > 0
            )
        context.add_output_metadata(
            {
                **counts,
                "rows": len(obj),
                "bytes": sum(len(document.body) for document in documents),
                "collection": settings.collection,
                "seconds": perf_counter() - started,
                "dagster/storage_kind": "mongodb",
                "dagster/table_name": f"{self.mongo.database}.{settings.collection}",
                "dagster/column_schema": dg.TableSchema(
                    [dg.TableColumn(name, type=dtype) for name, dtype in dtypes.items()]
                ),
            }
        )
        if settings.mode == "replace" and not part:
            context.add_output_metadata({"dagster/row_count": len(obj)})
        _add_row_counts(context, rows_of)

    def load_input(self, context: dg.InputContext) -> "pd.DataFrame":
        """Load an asset, or the partitions of it that the input covers, in no certain order.

        Raises:
            MongoSettingsError: The asset's or the input's metadata makes no sense.
            MongoLoadError: A stored value does not fit its column, or there is no such column.
            MongoConnectionError: There is no server, or it was lost.
        """
        from dagster_mongo import frames

        metadata = context.upstream_output.definition_metadata if context.upstream_output else {}
        settings = _settings(context, metadata)
        part = slice_of(context, metadata.get("partition_expr"))
        wanted = columns_of(context.definition_metadata)
        with translated(self.mongo.address):
            collection = self._collection(settings)
            dtypes = schemas.load(collection.database, _schema_name(context, settings))
            # A projection of all columns would only cost the server time.
            projection = {"_id": False, **dict.fromkeys(wanted, True)} if wanted else None
            found = collection.find(part.query() if part else {}, projection)
            return frames.to_frame(found, dtypes, wanted)

    def _collection(self, settings: Settings) -> Collection[dict[str, Any]]:
        return self.mongo.get_collection(settings.collection).with_options(
            codec_options=_CODEC, write_concern=settings.write_concern
        )


def _settings(context: dg.InputContext | dg.OutputContext, metadata: Mapping[str, Any]) -> Settings:
    default = "_".join(context.asset_key.path) if context.has_asset_key else ""
    return Settings.from_metadata(metadata, default)


def _schema_name(context: dg.InputContext | dg.OutputContext, settings: Settings) -> str:
    asset = context.asset_key.to_user_string() if context.has_asset_key else ""
    return f"{settings.collection}:{asset}"


def _add_row_counts(context: dg.OutputContext, rows_of: Mapping[str, int]) -> None:
    """Tell each partition's own number of rows, where the other metadata is the whole run's."""
    if len(rows_of) == 1:
        context.add_output_metadata({"dagster/partition_row_count": next(iter(rows_of.values()))})
    elif len(rows_of) <= _MOST_PARTITIONS_WITH_COUNTS:
        for partition, rows in rows_of.items():
            context.step_context.add_asset_metadata(
                {"dagster/partition_row_count": rows}, context.asset_key, partition
            )
