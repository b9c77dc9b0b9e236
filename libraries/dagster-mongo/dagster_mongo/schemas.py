"""What is kept of each asset beside its documents: its collection, and its columns' dtypes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from dagster_mongo.errors import MongoFrameError, MongoSettingsError

__all__ = ["COLLECTION", "Field", "Schema", "Stored"]

COLLECTION = "dagster_mongo_schemas"
_TRIES = 50
_LARGEST_EXACT = 2**53


class Field(NamedTuple):
    """A column of what was stored.

    Attributes:
        dtype: Its name, in the words of the DataFrame library.
        only_nulls: Every value so far was null, so any other dtype may take its place.
    """

    dtype: str
    only_nulls: bool = False


Fields = Mapping[str, Field]
# Tells whether the collection has a document that matches, besides those that a store replaces.
Others = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Stored:
    """What a store brings.

    Attributes:
        fields: The columns of the frame.
        columns: Their values.
        widening: The dtype that holds the values of two, None if there is none.
        replaces_all: Nothing that was stored before is left afterwards.
    """

    fields: Fields
    columns: Mapping[str, list[Any]]
    widening: Callable[[str, str], str | None]
    replaces_all: bool


@dataclass(frozen=True)
class Schema:
    """The kept dtypes of one asset in one collection.

    Attributes:
        database: Where they are kept, in the collection `dagster_mongo_schemas`.
        collection: The name of the asset's collection.
        asset: The asset's key as text, empty for an op's output.
        library: Whose dtypes they are, "pandas" or "polars"; "documents" has none.
    """

    database: Database[dict[str, Any]]
    collection: str
    asset: str
    library: str

    def load(self) -> dict[str, str]:
        """The dtypes of everything that was stored; empty if nothing was."""
        return {name: field.dtype for name, field in self._fields(self._kept()).items()}

    def claim(self, collection: Collection[dict[str, Any]]) -> None:
        """Refuse to store in a way that deletes documents which the asset has not stored.

        Raises:
            MongoSettingsError: Another asset is in the collection, or documents of others are.
        """
        assets = list(self._assets())
        if other := next((asset for asset in assets if asset != self.asset), None):
            raise MongoSettingsError(
                f"Asset {other!r} is in the collection {self.collection!r} too, and mongo/mode"
                f" 'replace' would delete its documents. Set mongo/collection of one of both, or"
                f" mongo/mode 'upsert'. If {other!r} does not exist any more, delete"
                f" {f'{self.collection}:{other}'!r} from {COLLECTION}."
            )
        if assets:
            return
        if collection.find_one({}, {"_id": True}):
            raise MongoSettingsError(
                f"The collection {self.collection!r} has documents already that the asset"
                f" {self.asset!r} has not stored, and mongo/mode 'replace' would delete them. Set"
                " mongo/collection, or mongo/mode 'upsert'. If they may be deleted, insert"
                f" {{'_id': {self._id!r}}} into {COLLECTION}."
            )
        self._change(dict)

    def prepare(self, stored: Stored, others: Others) -> None:
        """Merge the columns of a store into those that are kept, before it is written.

        Raises:
            MongoFrameError: A column's dtype does not go with what is stored.
        """
        self._change(lambda kept: self._widened(kept, stored, others))

    def finish(self, stored: Stored) -> None:
        """Keep what is true after a store: where it replaced everything, only its columns."""
        if stored.replaces_all and any(stored.columns.values()):
            self._change(lambda kept: dict(stored.fields))

    @property
    def _id(self) -> str:
        return f"{self.collection}:{self.asset}"

    @property
    def _columns(self) -> str:
        return "columns" if self.library == "pandas" else f"{self.library}_columns"

    def _kept(self) -> dict[str, Any]:
        return self.database[COLLECTION].find_one({"_id": self._id}) or {}

    def _fields(self, kept: Mapping[str, Any]) -> dict[str, Field]:
        columns = kept.get(self._columns, [])
        return {
            each["name"]: Field(each["dtype"], bool(each.get("only_nulls"))) for each in columns
        }

    def _assets(self) -> Iterator[str]:
        """The assets that are in the collection."""
        prefix = f"{self.collection}:"
        query = {"_id": {"$gte": prefix, "$lt": f"{self.collection};"}}
        for document in self.database[COLLECTION].find(query, {"_id": True}):
            yield document["_id"].removeprefix(prefix)

    def _widened(self, kept: Fields, stored: Stored, others: Others) -> dict[str, Field]:
        fields = dict(kept)
        for name, new in stored.fields.items():
            before = kept.get(name)
            if before is None or (before.only_nulls and not new.only_nulls):
                fields[name] = new
            elif not new.only_nulls and new.dtype != before.dtype:
                dtype = stored.widening(before.dtype, new.dtype)
                if dtype is None and not stored.replaces_all and others({name: {"$ne": None}}):
                    raise MongoFrameError(
                        f"Column {name!r} is {new.dtype}, but {before.dtype} in what is stored in"
                        f" the collection {self.collection!r}, and no dtype holds both. Convert"
                        " it, or store it under another name."
                    )
                fields[name] = Field(dtype or new.dtype)
        self._refuse_inexact(kept, fields, stored, others)
        return fields

    def _refuse_inexact(self, kept: Fields, fields: Fields, stored: Stored, others: Others) -> None:
        """Refuse integers that would lose digits in a column that is of floats by now."""
        for name in (name for name, field in fields.items() if _is_float(field.dtype)):
            new, before = stored.fields.get(name), kept.get(name)
            if new and _is_integer(new.dtype):
                values = (value for value in stored.columns[name] if value is not None)
                if any(abs(value) > _LARGEST_EXACT for value in values):
                    raise MongoFrameError(self._too_large(name, "the DataFrame"))
            if before and _is_integer(before.dtype) and not stored.replaces_all:
                beyond = [{name: {"$gt": _LARGEST_EXACT}}, {name: {"$lt": -_LARGEST_EXACT}}]
                if any(map(others, beyond)):
                    raise MongoFrameError(self._too_large(name, self.collection))

    def _too_large(self, name: str, where: str) -> str:
        return (
            f"Column {name!r} has integers beyond 2**53 in {where!r}, and floats as well: they do"
            " not fit one column without loss. Convert it, or store it under another name."
        )

    def _change(self, change: Callable[[dict[str, Field]], dict[str, Field]]) -> None:
        """Replace what is kept, if nobody else did in the meantime; otherwise begin again."""
        schemas = self.database[COLLECTION]
        for _ in range(_TRIES):
            before = self._kept()
            kept = self._fields(before)
            fields = change(kept)
            if before and list(fields.items()) == list(kept.items()):
                return
            version = before.get("version")
            columns = [{"name": name, **field._asdict()} for name, field in fields.items()]
            after = {
                **before,
                "_id": self._id,
                "version": (version or 0) + 1,
                self._columns: columns,
            }
            try:
                if not before:
                    schemas.insert_one(after)
                    return
                if schemas.replace_one({"_id": self._id, "version": version}, after).matched_count:
                    return
            except DuplicateKeyError:
                continue
        raise MongoFrameError(
            f"The columns of {self._id!r} could not be kept: other runs store it at this moment."
            " Store again."
        )


def _is_float(dtype: str) -> bool:
    return dtype.lower().startswith("float")


def _is_integer(dtype: str) -> bool:
    return dtype.lower().startswith(("int", "uint"))
