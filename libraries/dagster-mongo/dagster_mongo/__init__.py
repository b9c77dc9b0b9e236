"""MongoDB for Dagster: a resource, and an I/O manager that keeps DataFrames in collections."""

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
from dagster_mongo.io_manager import MongoPandasIOManager
from dagster_mongo.resource import MongoResource

__version__ = "0.1.0+source"

__all__ = [
    "DagsterMongoError",
    "MongoAuthenticationError",
    "MongoBulkWriteError",
    "MongoConnectionError",
    "MongoFrameError",
    "MongoLoadError",
    "MongoOperationError",
    "MongoPandasIOManager",
    "MongoResource",
    "MongoSettingsError",
    "__version__",
]
