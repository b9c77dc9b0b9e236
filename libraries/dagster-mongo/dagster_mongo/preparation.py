"""What a collection needs before a store: its options, its validator and its indexes."""

from collections.abc import Iterable, Mapping
from typing import Any

from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import CollectionInvalid, OperationFailure

from dagster_mongo.settings import Settings

__all__ = ["prepare"]

Fields = dict[str, Any]
_INDEX_OPTIONS_CONFLICT = 85
_NAMESPACE_EXISTS = 48


def prepare(
    collection: Collection[Fields], settings: Settings, partition_fields: Iterable[str]
) -> None:
    """Make what is missing of a collection's time series, validator, TTL index and indexes.

    Raises:
        pymongo.errors.OperationFailure: The server refused, for example an index that conflicts.
    """
    if settings.time_series or settings.validator:
        _ensure_options(collection, settings)
    if settings.expire_after:
        _ensure_expiry(collection, settings.expire_after)
    _ensure_indexes(collection, settings, list(partition_fields))


def _ensure_options(collection: Collection[Fields], settings: Settings) -> None:
    database, name = collection.database, collection.name
    existing = next(iter(database.list_collections(filter={"name": name})), None)
    if existing is None:
        options: Fields = {}
        if settings.validator:
            options["validator"] = settings.validator
        if settings.time_series:
            options["timeseries"] = dict(settings.time_series)
            if "expireAfterSeconds" in options["timeseries"]:
                options["expireAfterSeconds"] = options["timeseries"].pop("expireAfterSeconds")
        if _created(collection, options):
            return
        existing = {}
    if settings.validator and existing.get("options", {}).get("validator") != settings.validator:
        database.command("collMod", name, validator=settings.validator)


def _created(collection: Collection[Fields], options: Mapping[str, Any]) -> bool:
    """Create a collection; False if another writer did it at the same moment."""
    try:
        collection.database.create_collection(collection.name, **options)
    except CollectionInvalid:
        return False
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise
        return False
    return True


def _ensure_expiry(collection: Collection[Fields], expire_after: Mapping[str, int]) -> None:
    """Make a TTL index, or give an existing one its new number of seconds."""
    for field, seconds in expire_after.items():
        try:
            collection.create_index([(field, 1)], expireAfterSeconds=seconds)
        except OperationFailure as error:
            if error.code != _INDEX_OPTIONS_CONFLICT:
                raise
            index = {"keyPattern": {field: 1}, "expireAfterSeconds": seconds}
            collection.database.command("collMod", collection.name, index=index)


def _ensure_indexes(
    collection: Collection[Fields], settings: Settings, partition_fields: list[str]
) -> None:
    """Make the declared indexes, and one to find a partition by.

    The second only if no declared index begins with a partition field.
    """
    indexes = list(settings.indexes)
    leading = {next(iter(index.document["key"])) for index in indexes}
    leading |= (settings.expire_after or {}).keys()
    if partition_fields and not leading & set(partition_fields) and not settings.time_series:
        indexes.append(IndexModel([(field, 1) for field in partition_fields]))
    if indexes:
        collection.create_indexes(indexes)
