"""polars DataFrames in collections. Imports polars only when one is stored or loaded."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_mongo.fields import Field, Widening
from dagster_mongo.frames import MongoFrameIOManager

if TYPE_CHECKING:
    import polars as pl

    from dagster_mongo.columns import Column

__all__ = ["MongoPolarsIOManager"]


class MongoPolarsIOManager(MongoFrameIOManager):
    """Keeps an asset's polars DataFrame in a collection, one document for each row.

    The metadata of an asset says how it is kept, and the metadata of an input what of it is
    loaded; the README has all keys. A DataFrame comes back with the dtypes that it was stored
    with, or, where those of several stores differ, with the dtypes that hold the values of all.
    Datetimes are kept to the millisecond; null is null and NaN is NaN. Time, Duration, Int128,
    Array and Object columns are refused.

    Example:
        ```python
        import dagster as dg
        import polars as pl
        from dagster_mongo import MongoPolarsIOManager, MongoResource

        @dg.asset(metadata={"mongo/mode": "upsert", "mongo/key": ["sku"]})
        def products() -> pl.DataFrame:
            return pl.DataFrame({"sku": ["a1", "b2"], "price": [9.5, 12.0]})

        @dg.asset(ins={"products": dg.AssetIn(metadata={"columns": ["price"]})})
        def total(products: pl.DataFrame) -> dg.MaterializeResult:
            return dg.MaterializeResult(metadata={"total": float(products["price"].sum())})

        mongo = MongoResource(uri=dg.EnvVar("MONGO_URI"), database="shop")
        defs = dg.Definitions(
            assets=[products, total],
            resources={"io_manager": MongoPolarsIOManager(mongo=mongo)},
        )
        ```
    """

    def handle_output(self, context: dg.OutputContext, obj: "pl.DataFrame") -> None:
        """Store a DataFrame, as `MongoIOManager.handle_output` says."""
        super().handle_output(context, obj)

    def load_input(self, context: dg.InputContext) -> "pl.DataFrame":
        """Load a DataFrame, as `MongoIOManager.load_input` says.

        Raises:
            MongoLoadError: Besides the others: a value does not fit its column's dtype.
        """
        frame: pl.DataFrame = super().load_input(context)
        return frame

    @property
    def _library(self) -> str:
        return "polars"

    def _values(self, obj: Any) -> tuple[dict[str, list[Any]], dict[str, Field], Widening]:
        from dagster_mongo import polars_frames

        values = polars_frames.to_values(obj)
        return values, polars_frames.fields_of(obj), polars_frames.widened

    def _frame(
        self, columns: Mapping[str, "Column"], rows: int, dtypes: Mapping[str, str | None]
    ) -> "pl.DataFrame":
        from dagster_mongo import polars_frames

        return polars_frames.to_frame(columns, rows, dtypes)
