"""Keeps the quotes between the steps: one Parquet file a window."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field
from upath import UPath

from market_data_pipeline.windows import start_of

if TYPE_CHECKING:
    import pandas as pd


class QuotesParquetIOManager(dg.ConfigurableIOManager):
    """Stores a DataFrame of quotes as one Parquet file for each window, and loads it again.

    A run of many windows writes a file for each, also for one without a row, so that each can be
    loaded again alone. A file appears whole or not at all. No row is no reason to drop those that
    are there: what the plan has no bar for may have been observed when it was live.
    """

    base_path: str = Field(
        description="Folder or fsspec address (such as s3://bucket/quotes) that holds the files."
    )

    @cached_property
    def _base(self) -> UPath:
        return UPath(self.base_path)

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
        """Writes the rows of each window of the output's partitions into that window's file.

        A window without a row keeps the file it has.
        """
        folder = self._folder(context)
        folder.mkdir(parents=True, exist_ok=True)
        by_start = dict(list(obj.groupby("window_start")))
        empty = obj.iloc[:0]
        for key in context.asset_partition_keys:
            rows, path = by_start.get(start_of(key), empty), folder / f"{key}.parquet"
            if not rows.empty or not path.exists():
                self._write(rows, path, context.run_id)
        context.add_output_metadata({"path": dg.MetadataValue.path(str(folder))})

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """The rows of the input's windows, in their order.

        Raises:
            Failure: a window was never stored.
        """
        import pandas as pd

        assert context.upstream_output is not None
        folder = self._folder(context.upstream_output)
        keys = list(context.asset_partition_keys)
        stored = {key: self._read(folder / f"{key}.parquet") for key in keys}
        frames = [frame for frame in stored.values() if frame is not None]
        if len(frames) < len(keys):
            missing = [key for key, frame in stored.items() if frame is None]
            raise dg.Failure(
                f"There are no stored quotes for {missing[0]}"
                + (f" and {len(missing) - 1} more windows" if len(missing) > 1 else "")
                + f" in {folder}: materialize `quotes` for them first.",
                allow_retries=False,
            )
        # Rows of an empty frame have no part in the types of the whole.
        filled = [frame for frame in frames if not frame.empty]
        return pd.concat(filled, ignore_index=True) if filled else frames[0]

    def stored(self, asset_key: dg.AssetKey, key: str) -> pd.DataFrame | None:
        """The rows that are stored of one window, None if it never was."""
        return self._read(self._base.joinpath(*asset_key.path) / f"{key}.parquet")

    def _folder(self, context: dg.OutputContext) -> UPath:
        return self._base.joinpath(*context.asset_key.path)

    def _write(self, rows: pd.DataFrame, path: UPath, run_id: str) -> None:
        content = rows.to_parquet(index=False)
        if path.protocol not in ("", "file", "local"):
            path.write_bytes(content)  # an object store shows an object whole or not at all
            return
        unfinished = path.with_name(f".{path.name}.{run_id}")
        unfinished.write_bytes(content)
        unfinished.replace(path)

    def _read(self, path: UPath) -> pd.DataFrame | None:
        import pandas as pd

        try:
            with path.open("rb") as file:
                return pd.read_parquet(file)
        except FileNotFoundError:
            return None
