"""One request to Brapi and what came back, all of it within a time."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from market_data_pipeline.brapi.errors import RunError, TemporaryError

LARGEST_BODY_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Reply:
    """An HTTP answer: the JSON of its body (None where it is none) and the headers that count.

    `retry_after` is in seconds; `quota_limit` and `quota_left` are requests in the usage window.
    """

    status: int
    body: Any
    retry_after: float | None
    quota_limit: int | None
    quota_left: int | None


class Connection:
    """Reuses connections to one address, and sends the token in a header and nowhere else.

    Args:
        base_url: where the API is, without `/api`.
        token: the API token.
        size: how many requests may be open at the same time.

    Raises:
        RunError: the token or the address cannot be used; the text says what to set.
    """

    def __init__(self, base_url: str, token: str, size: int) -> None:
        if not token:
            raise RunError(
                "BRAPI_TOKEN is not set. Put your token into .env (BRAPI_TOKEN=…) or the "
                "environment of the code location, or unset BRAPI_BASE_URL and use `make dev` for "
                "the sandbox."
            )
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise RunError("BRAPI_TOKEN holds a character that no token has: copy it again.")
        if not base_url.startswith(("http://", "https://")):
            raise RunError("BRAPI_BASE_URL must start with https:// (or http://).")
        self._base_url = base_url.rstrip("/")
        self._token = token.encode()
        self._session = requests.Session()
        self._session.auth = _Bearer(token)
        adapter = HTTPAdapter(pool_maxsize=size)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def get(self, path: str, parameters: Mapping[str, str], seconds: float) -> Reply:
        """Asks for `path`, and has the whole answer within `seconds`.

        Raises:
            TemporaryError: it took longer, the connection failed or the body was cut.
        """
        until = time.monotonic() + seconds
        try:
            with self._session.get(
                self._base_url + path,
                params=parameters,
                timeout=seconds,
                stream=True,
                allow_redirects=False,
            ) as response:
                return self._reply(response, until)
        except (requests.Timeout, TimeoutError):
            raise TemporaryError(f"no answer within {seconds:.3g} s") from None
        except (requests.RequestException, HTTPError, OSError) as error:
            # The library's own words may repeat the address and what was sent to it.
            raise TemporaryError(f"the connection failed ({type(error).__name__})") from None

    def close(self) -> None:
        """Closes the connections that no request uses."""
        self._session.close()

    def _reply(self, response: requests.Response, until: float) -> Reply:
        content = bytearray()
        # One read of the socket at a time: a time-out alone would wait for ever on a body that
        # comes byte by byte.
        while chunk := response.raw.read1(65536, decode_content=True):
            content += chunk
            if time.monotonic() >= until:
                raise TimeoutError
            if len(content) > LARGEST_BODY_BYTES:
                raise TemporaryError("the answer is too large")
        headers = response.headers
        return Reply(
            status=response.status_code,
            body=_json(bytes(content).replace(self._token, b"***")),
            retry_after=_retry_after(headers.get("Retry-After")),
            quota_limit=_rate_limit(headers, "limit"),
            quota_left=_rate_limit(headers, "remaining"),
        )


class _Bearer(AuthBase):
    """Without an auth of its own, requests would let a .netrc replace the header."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _rate_limit(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(f"x-ratelimit-{name}") or headers.get(f"ratelimit-{name}") or ""
    return int(value) if value.isascii() and value.isdigit() else None


def _retry_after(value: str | None) -> float | None:
    """Seconds from either form of the header: a number, or a date."""
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        wait = parsedate_to_datetime(value) - datetime.now(UTC)
    except (TypeError, ValueError):
        return None
    return max(0.0, wait.total_seconds())
