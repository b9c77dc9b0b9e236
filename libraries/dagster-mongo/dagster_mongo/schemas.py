"""The dtypes of what is stored, which BSON alone does not tell."""

from collections.abc import Mapping
from typing import Any

from pymongo.database import Database

COLLECTION = "dagster_mongo_schemas"


def load(database: Database[dict[str, Any]], name: str) -> dict[str, str]:
    """The columns and dtypes that were kept under a name, none if there are none."""
    kept = database[COLLECTION].find_one({"_id": name}) or {}
    return {column["name"]: column["dtype"] for column in kept.get("columns", [])}


def keep(
    database: Database[dict[str, Any]], name: str, dtypes: Mapping[str, str], *, replace: bool
) -> None:
    """Keep the columns and dtypes under a name, over others only if they may be replaced."""
    kept = load(database, name)
    if kept == dtypes or (kept and not replace):
        return
    columns = [{"name": column, "dtype": dtype} for column, dtype in dtypes.items()]
    database[COLLECTION].update_one({"_id": name}, {"$set": {"columns": columns}}, upsert=True)
