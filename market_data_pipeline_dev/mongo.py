"""MongoDB in one process: nx-27017 speaks its wire protocol over SQLite files.

    python -m market_data_pipeline_dev.mongo PORT FOLDER

One file for each database, in the folder. It has no authentication and no sorting by index: it is
for development.
"""

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from market_data_pipeline_dev.process import Child


@contextlib.contextmanager
def embedded_mongo(folder: Path) -> Iterator[str]:
    """Runs a MongoDB until the context ends, on files that outlive it; yields its URI."""
    with tempfile.TemporaryDirectory() as logs:
        child = start(folder, 0, Path(logs, "log"))
        try:
            yield child.said(r"(mongodb://\S+)\n")
        finally:
            child.stop()


def start(folder: Path, port: int, log: Path) -> Child:
    """Starts it, without waiting for it; 0 for a free port."""
    command = [sys.executable, "-m", __name__, str(port), str(folder)]
    return Child("The embedded MongoDB", command, None, log)


async def _serve(port: int, folder: str) -> None:
    from nx_27017 import NeoSQLiteHandler
    from nx_27017.server import handle_client

    handler, stopped = NeoSQLiteHandler(data_dir=folder), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = await asyncio.start_server(
        lambda reader, writer: handle_client(reader, writer, handler), "127.0.0.1", port
    )
    print(f"mongodb://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201
    await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
