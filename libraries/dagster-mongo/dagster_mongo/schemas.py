"""What is kept of each asset beside its documents: its collection, and its columns' dtypes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from dagster_mongo.errors import MongoFrameError, MongoSettingsError
from dagster_mongo.fields import Clash, Field, Fields, Widening, described, merged, parsed

__all__ = ["COLLECTION", "Schema", "Stored"]

COLLECTION = "dagster_mongo_schemas"
_TRIES = 50
_LARGEST_EXACT = 2**53

# Whether the collection has a document that matches, besides those that a store replaces.
Others = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Stored:
    """What a store brings.

    Attributes:
        fields: The columns of the frame.
        columns: Their values.
        widening: The rules by which two dtypes become one.
        replaces_all: Nothing that was stored before is left afterwards.
        others: Tells whether documents that are left match a query.
    """

    fields: Fields
    columns: Mapping[str, list[Any]]
    widening: Widening
    replaces_all: bool
    others: Others


@dataclass(frozen=True)
class Schema:
    """The kept dtypes of one asset in one collection.

    Attributes:
        database: Where they are kept, in the collection `dagster_mongo_schemas`.
        collection: The name of the asset's collection.
        asset: The asset's key as text, empty for an op's output.
        library: Whose dtypes they are, "pandas" or "polars"; "documents" keeps none.
    """

    database: Database[dict[str, Any]]
    collection: str
    asset: str
    library: str

    def load(self) -> dict[str, Field]:
        """The columns of everything that was stored; empty if nothing was."""
        return parsed(self._kept().get(self._columns, []))

    def claim(self, former: str | None, *, exclusive: bool) -> None:
        """Refuse to share a collection in a way that loses documents.

        Args:
            former: The collection in which version 0.1 kept the asset, if that is another.
            exclusive: The store deletes documents, so no other asset may be in the collection.

        Raises:
            MongoSettingsError: Another asset is there, or the asset is in its former collection.
        """
        others = list(self._assets_in(self.collection))
        if exclusive and any(asset != self.asset for asset in others):
            other = next(asset for asset in others if asset != self.asset)
            raise MongoSettingsError(
                f"Asset {other!r} is in the collection {self.collection!r} too, and mongo/mode"
                f" 'replace' would delete its documents. Set mongo/collection of one of both, or"
                f" mongo/mode 'upsert'. If {other!r} does not exist any more, delete"
                f" {f'{self.collection}:{other}'!r} from {COLLECTION}."
            )
        if former and self.asset not in others and self.asset in self._assets_in(former):
            raise MongoSettingsError(
                f"Asset {self.asset!r} was stored in the collection {former!r} by version 0.1, and"
                f" is now in {self.collection!r}, so that no other asset shares it. Rename the"
                f" collection and the entry in {COLLECTION}, or set mongo/collection to {former!r}."
            )

    def prepare(self, stored: Stored) -> None:
        """Merge the columns of a store into those that are kept, before it is written.

        Raises:
            MongoFrameError: A column's dtype does not go with what is stored.
        """
        self._change(lambda kept: self._widened(kept, stored, final=False))

    def finish(self, stored: Stored) -> None:
        """Keep what is true after a store: where it replaced everything, only its columns."""
        self._change(lambda kept: self._widened(kept, stored, final=True))

    def register(self) -> None:
        """Note that the asset is in the collection, without any columns."""
        self._change(dict)

    @property
    def _id(self) -> str:
        return f"{self.collection}:{self.asset}"

    @property
    def _columns(self) -> str:
        return "columns" if self.library == "pandas" else f"{self.library}_columns"

    def _kept(self) -> dict[str, Any]:
        return self.database[COLLECTION].find_one({"_id": self._id}) or {}

    def _assets_in(self, collection: str) -> Iterator[str]:
        prefix = f"{collection}:"
        query = {"_id": {"$gte": prefix, "$lt": f"{collection};"}}
        for document in self.database[COLLECTION].find(query, {"_id": True}):
            yield document["_id"].removeprefix(prefix)

    def _widened(self, kept: Fields, stored: Stored, *, final: bool) -> dict[str, Field]:
        has_rows = any(stored.columns.values())
        if final and stored.replaces_all and has_rows:
            return dict(stored.fields)
        fields, clashes = merged(kept, stored.fields, stored.widening)
        for clash in clashes:
            if not stored.replaces_all and stored.others({clash.name: {"$ne": None}}):
                raise MongoFrameError(self._refusal(clash))
            # While old and new values are side by side, the values tell what they are.
            fields[clash.name] = stored.fields[clash.name] if final else Field(None)
        if not final:
            self._refuse_inexact(kept, fields, stored)
        return fields

    def _refusal(self, clash: Clash) -> str:
        return (
            f"Column {clash.name!r} is {clash.new}, but {clash.kept} in what is stored in the"
            f" collection {self.collection!r}, and no dtype holds both. Convert it, or store it"
            " under another name."
        )

    def _refuse_inexact(self, kept: Fields, fields: Fields, stored: Stored) -> None:
        """Refuse integers that would lose digits in a column that is of floats by now."""
        for name, field in fields.items():
            if not _is_float(field.dtype):
                continue
            new = stored.fields.get(name)
            if new and _is_integer(new.dtype):
                large: Iterable[Any] = (v for v in stored.columns[name] if v is not None)
                if any(abs(value) > _LARGEST_EXACT for value in large):
                    raise MongoFrameError(self._too_large(name, "the DataFrame"))
            before = kept.get(name)
            if before and _is_integer(before.dtype) and not stored.replaces_all:
                beyond = [{name: {"$gt": _LARGEST_EXACT}}, {name: {"$lt": -_LARGEST_EXACT}}]
                if any(map(stored.others, beyond)):
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
            document = self._kept()
            kept = parsed(document.get(self._columns, []))
            fields = change(kept)
            if document and list(fields.items()) == list(kept.items()):
                return
            version = document.get("version")
            new = {
                **document,
                "_id": self._id,
                "version": (version or 0) + 1,
                **({self._columns: described(fields)} if self.library != "documents" else {}),
            }
            if document:
                if schemas.replace_one({"_id": self._id, "version": version}, new).matched_count:
                    return
                continue
            try:
                schemas.insert_one(new)
            except DuplicateKeyError:
                continue
            return
        raise MongoFrameError(
            f"The columns of {self._id!r} could not be kept: other runs store it at this moment."
            " Store again."
        )


def _is_float(dtype: str | None) -> bool:
    return bool(dtype) and str(dtype).lower().startswith(("float", "double", "halffloat"))


def _is_integer(dtype: str | None) -> bool:
    return bool(dtype) and str(dtype).lower().startswith(("int", "uint"))
