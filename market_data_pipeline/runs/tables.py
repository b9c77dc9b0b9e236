"""Tables of Dagster's UI."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from market_data_pipeline.market.quote import COLUMNS

# Dagster's name for the rows of a partition.
ROW_COUNT = "dagster/partition_row_count"


def column_schema(columns: Mapping[str, tuple[str, str]] = COLUMNS) -> dg.TableSchema:
    """Columns by type and description; by default those of a quote."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, kind, description=description)
            for name, (kind, description) in columns.items()
        ]
    )


def table_if_any(name: str, records: list[dict[str, Any]]) -> dict[str, dg.TableMetadataValue]:
    """Metadata with a table of that name, unless it would be empty."""
    return {name: table(records)} if records else {}


def table(records: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """A table of the UI; every record has the same keys."""
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records])
