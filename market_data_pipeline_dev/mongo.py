"""MongoDB in one process: nx-27017 speaks its wire protocol over SQLite files.

    python -m market_data_pipeline_dev.mongo --port 27117 --folder FOLDER

One file for each database, in the folder. It has no authentication and no sorting by index: it is
for development.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from market_data_pipeline_dev.process import announced, stand_in, stand_in_parser

NAME = "The embedded MongoDB"


@contextlib.contextmanager
def embedded_mongo(folder: Path, port: int = 0) -> Iterator[str]:
    """Runs a MongoDB of one's own in a process, until the context ends.

    Args:
        folder: where the data are; they outlive the process.
        port: the port of the loopback; by default a free one.

    Returns:
        Its URI.

    Raises:
        ChildDiedError: it did not come up.
    """
    arguments = ("--port", str(port), "--folder", str(folder))
    with (
        tempfile.TemporaryDirectory() as logs,
        stand_in("mongo", Path(logs), *arguments) as uri,
    ):
        yield uri


async def _serve(port: int, folder: Path, address_file: Path | None) -> None:
    from nx_27017 import NeoSQLiteHandler
    from nx_27017.server import handle_client

    handler = NeoSQLiteHandler(data_dir=str(folder))
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = await asyncio.start_server(
        lambda reader, writer: handle_client(reader, writer, handler), "127.0.0.1", port
    )
    uri = f"mongodb://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with announced(NAME, uri, address_file):
        await stopped.wait()


def main() -> int:
    """Serves the databases of a folder until it is stopped."""
    parser = stand_in_parser(NAME)
    parser.add_argument("--port", type=int, default=27117)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.folder, options.address_file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
