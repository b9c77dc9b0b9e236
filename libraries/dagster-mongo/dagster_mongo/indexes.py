"""The indexes of a collection: what is missing is made, unless its owner forbids that."""

from collections.abc import Sequence
from typing import Any

from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

__all__ = ["ensure_indexes"]

# No right to make it; it is there with another name or other options; what Atlas says of anything.
_REFUSALS = {13, 68, 85, 86, 8000}
_PARTIAL = {"partialFilterExpression", "sparse"}


def ensure_indexes(
    collection: Collection[dict[str, Any]],
    indexes: Sequence[IndexModel],
    partition_field: str | None = None,
) -> list[str]:
    """Make indexes, and one that begins with a partition field, where they are missing.

    One on the same fields will do, whatever its name.

    Returns:
        Those that are not made, and why: it is for their owner to make them. Nothing that is stored
        depends on them.

    Raises:
        pymongo.errors.OperationFailure: The server refused for another reason.
    """
    wanted = list(indexes)
    leading = {next(iter(index.document["key"])) for index in wanted}
    if partition_field and partition_field not in leading:
        wanted.append(IndexModel([(partition_field, 1)]))
    there = _keys_of_indexes(collection) if wanted else []
    refused = []
    for index in wanted:
        is_plain = index.document.keys() <= {"key", "name"}
        if is_plain and list(index.document["key"].items()) in there:
            continue
        try:
            collection.create_indexes([index])
        except OperationFailure as error:
            if error.code not in _REFUSALS:
                raise
            reason = (error.details or {}).get("errmsg") or str(error)
            refused.append(f"{index.document['name']} ({reason.rstrip('.')})")
    return refused


def _keys_of_indexes(collection: Collection[dict[str, Any]]) -> list[list[tuple[str, Any]]]:
    try:
        there = list(collection.list_indexes())
    except OperationFailure:  # no right to see them
        return []
    return [list(index["key"].items()) for index in there if not _PARTIAL & index.keys()]
