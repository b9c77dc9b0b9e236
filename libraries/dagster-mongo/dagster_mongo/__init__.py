"""MongoDB for Dagster: a resource, and I/O managers for DataFrames and for documents."""

from dagster_shared.libraries import DagsterLibraryRegistry

from dagster_mongo.documents_io_manager import MongoDocumentsIOManager
from dagster_mongo.errors import (
    DagsterMongoError,
    MongoAuthenticationError,
    MongoBulkWriteError,
    MongoConnectionError,
    MongoFrameError,
    MongoLoadError,
    MongoOperationError,
    MongoSettingsError,
)
from dagster_mongo.pandas_io_manager import MongoPandasIOManager
from dagster_mongo.polars_io_manager import MongoPolarsIOManager
from dagster_mongo.resource import MongoResource

__version__ = "0.1.0+source"

__all__ = [
    "DagsterMongoError",
    "MongoAuthenticationError",
    "MongoBulkWriteError",
    "MongoConnectionError",
    "MongoDocumentsIOManager",
    "MongoFrameError",
    "MongoLoadError",
    "MongoOperationError",
    "MongoPandasIOManager",
    "MongoPolarsIOManager",
    "MongoResource",
    "MongoSettingsError",
    "__version__",
]

DagsterLibraryRegistry.register("dagster-mongo", __version__, is_dagster_package=False)
