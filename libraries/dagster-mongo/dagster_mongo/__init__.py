"""MongoDB for Dagster: a resource, and I/O managers for DataFrames and for documents."""

from importlib.metadata import version

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
from dagster_mongo.frames import MongoPandasIOManager, MongoPolarsIOManager
from dagster_mongo.indexes import ensure_indexes
from dagster_mongo.resource import MongoResource

__version__ = version("dagster-mongo")

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
    "ensure_indexes",
]

DagsterLibraryRegistry.register("dagster-mongo", __version__, is_dagster_package=False)
