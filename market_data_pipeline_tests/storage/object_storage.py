"""Object storage for the tests: a real S3 server on loopback, and what it was asked."""

import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from market_data_pipeline_dev.process import Child
from market_data_pipeline_tests.services.go_program import go_program
from market_data_pipeline_tests.supervised import free_ports, wait_until

MODULE, VERSION = "github.com/versity/versitygw", "v1.8.0"
ACCESS_KEY, SECRET_KEY = "access-key-of-the-tests", "S3cret/key+of=the+tests"


@dataclass
class ObjectStorage:
    """The server: where it is, the folder with a folder for each bucket, the log of requests."""

    url: str
    buckets: Path
    requests: TextIO

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process that uses it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def make_bucket(self, name: str) -> None:
        """Makes an empty bucket."""
        import s3fs

        options = {"endpoint_url": self.url}
        s3fs.S3FileSystem(key=ACCESS_KEY, secret=SECRET_KEY, client_kwargs=options).mkdir(name)

    def objects(self, bucket: str) -> dict[str, int]:
        """What is in a bucket, as the server has it on disk: sizes by key."""
        folder = self.buckets / bucket
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.stat().st_size for path in files}

    def counted(self) -> Counter[str]:
        """How many requests of each kind came since it was last asked, by S3's names of them."""
        return Counter(re.findall(r" s3_(\w+) ", self.requests.read()))


@contextmanager
def object_storage(folder: Path) -> Iterator[ObjectStorage]:
    """Runs the server, which keeps everything in a folder."""
    program = str(go_program(MODULE, VERSION))
    metadata, buckets, requests = (folder / name for name in ("metadata", "buckets", "requests"))
    for each in (metadata, buckets):
        each.mkdir()
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    command = [program, "--port", address, "--quiet", "--keep-alive", "--access-log", str(requests)]
    command += ["posix", "--sidecar", str(metadata), str(buckets)]
    environment = os.environ | {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    server = Child("The S3 server", command, environment, folder / "server.log")

    def is_up() -> bool:
        server.check()
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(is_up, "the S3 server is up")
        with requests.open() as asked:
            yield ObjectStorage(f"http://{address}", buckets, asked)
    finally:
        server.stop()
