"""B3's files over HTTP: one request a second at the most, verified and bounded; no token."""

import time
from collections.abc import Iterable
from io import BufferedReader, RawIOBase
from tempfile import TemporaryFile
from typing import IO, cast
from urllib.parse import urlsplit
from zipfile import ZipFile

import requests
from urllib3.exceptions import HTTPError

from market_data_pipeline.b3.cotahist import read
from market_data_pipeline.market.errors import ClearError
from market_data_pipeline.market.quote import origin_of
from market_data_pipeline.settings import settings
from market_data_pipeline.storage.official_close import Closes

ATTEMPTS = 3
SECONDS, SOCKET_SECONDS = 300, 60
# A session takes 4 MB unpacked, a year 0.8 GB; zipped a ninth of it.
LARGEST_ZIP, LARGEST_FILE = 2**29, 2**32


class B3Error(ClearError):
    """B3 did not answer as it should; the text says why."""


class FileError(B3Error):
    """B3 has no such file (404), or it is damaged or a different one; it is not used."""


class B3History:
    """B3's files of official prices, by default those at B3_HISTORY_URL."""

    def __init__(self, url: str = "", pause: float = 1.0) -> None:
        self._url = (url or settings().b3_history_url).rstrip("/")
        self._verify = settings().b3_ca_bundle or True
        self._pause, self._next = pause, 0.0

    def sessions(self, period: str, wanted: Iterable[str]) -> dict[str, Closes]:
        """The sessions of a day (`2026-11-23`) or a year (`2026`), with B3's records of tickers.

        Raises:
            FileError: there is no such file, or it cannot be used.
            B3Error: B3 cannot be reached.
        """
        year, *day = period.split("-")
        name = f"COTAHIST_{'D' if day else 'A'}{''.join(reversed(day))}{year}.ZIP"
        try:
            with TemporaryFile() as file:
                sessions = _unpacked(file, wanted, self._fetch(name, file))
            if others := [key for key in sessions if not key.startswith(period)]:
                raise ValueError(f"it has records of {others[0]}")
        except ClearError:
            raise
        except Exception as error:  # zipfile raises whatever a damaged archive leads to
            raise FileError(f"{name} cannot be used: {error}.") from None
        return sessions

    def _fetch(self, name: str, file: IO[bytes]) -> str:
        """Downloads a file, in a few attempts; returns where it comes from."""
        why = ""
        for attempt in range(ATTEMPTS):
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + self._pause * 2**attempt
            file.truncate(file.seek(0))
            try:
                return self._download(name, file)
            except (requests.RequestException, HTTPError, OSError) as error:
                why = str(error) if type(error) is OSError else type(error).__name__
        raise B3Error(
            f"{name} did not come from B3 in {ATTEMPTS} attempts ({why}): check B3_HISTORY_URL, "
            "B3_CA_BUNDLE (for an SSLError) and the network, then materialize the session again."
        )

    def _download(self, name: str, file: IO[bytes]) -> str:
        url, until = f"{self._url}/{name}", time.monotonic() + SECONDS
        # A redirect could lead to an address that is not verified.
        with requests.get(
            url, timeout=SOCKET_SECONDS, stream=True, allow_redirects=False, verify=self._verify
        ) as response:
            if response.status_code == 404:
                raise FileError(
                    f"B3 has no {name}, which appears in the evening or the night after a session."
                )
            if response.status_code != 200:
                raise OSError(f"it answered {response.status_code}")
            while chunk := response.raw.read1(2**16, decode_content=True):
                file.write(chunk)
                if file.tell() > LARGEST_ZIP:
                    raise ValueError("it is too large")
                if time.monotonic() > until:
                    raise OSError(f"it took more than {SECONDS} s")
        return origin_of(str(urlsplit(url).hostname), response.headers)


def _unpacked(file: IO[bytes], wanted: Iterable[str], origin: str) -> dict[str, Closes]:
    with ZipFile(file) as archive:
        names = {each: each.filename.rpartition("/")[2].upper() for each in archive.infolist()}
        members = [each for each, name in names.items() if name.startswith("COTAHIST")]
        if len(members) != 1 or members[0].file_size > LARGEST_FILE:
            raise ValueError(f"it holds {len(members)} files of prices, or one that is too large")
        with archive.open(members[0]) as member:
            return read(BufferedReader(cast(RawIOBase, member), 2**20), wanted, origin)
