"""One request to Brapi, and what came back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from market_data_pipeline.brapi.errors import RunError, TemporaryError
from market_data_pipeline.market.quote import SANDBOX

NOT_SET = (
    "BRAPI_TOKEN is not set. Put your token into .env (BRAPI_TOKEN=…) or the environment of the "
    "code location, or unset BRAPI_BASE_URL and use `make dev` for the sandbox."
)
LARGEST_BODY_BYTES = 64 * 2**20
# What a bearer token is made of (RFC 6750).
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# A shorter one is no secret, and may be a part of any word.
SHORTEST_SECRET = 8


@dataclass(frozen=True)
class Reply:
    """An HTTP answer: the JSON of its body (None where it is none) and the headers that count.

    `origin` is the host that answered, or `brapi-sandbox` if it says that it is one. `retry_after`
    is in seconds; `quota_limit` and `quota_left` are requests in the usage window.
    """

    origin: str
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
            raise RunError(NOT_SET)
        if not TOKEN.fullmatch(token):
            raise RunError("BRAPI_TOKEN contains an invalid character: copy it again.")
        self.host = _host(base_url)
        self._base_url = base_url.rstrip("/")
        self._token = _in_any_form(token)
        self._session = requests.Session()
        self._session.auth = _Bearer(token)
        adapter = HTTPAdapter(pool_maxsize=size)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def get(self, path: str, parameters: Mapping[str, str], seconds: float) -> Reply:
        """Asks for `path`; `seconds` bound each wait for the socket, and the body as a whole.

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
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise TemporaryError(f"the connection failed: {_cause(error)}") from None

    def close(self) -> None:
        """Closes the connections that no request uses."""
        self._session.close()

    def _reply(self, response: requests.Response, until: float) -> Reply:
        content = bytearray()
        # One read of the socket at a time, so that a body that comes byte by byte is given up.
        while chunk := response.raw.read1(65536, decode_content=True):
            content += chunk
            if time.monotonic() >= until:
                raise TimeoutError
            if len(content) > LARGEST_BODY_BYTES:
                raise TemporaryError("the answer is too large")
        headers = response.headers
        sandbox = headers.get("Server", "").startswith(SANDBOX)
        return Reply(
            origin=SANDBOX if sandbox else self.host,
            status=response.status_code,
            body=_json(self._token.sub(b"***", bytes(content))),
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


def _in_any_form(token: str) -> re.Pattern[bytes]:
    """Finds the token in a body: as it is, or as JSON or an address may have escaped it."""
    if len(token) < SHORTEST_SECRET:
        return re.compile(rb"(?!)")
    forms = (
        char if char.isalnum() else rf"(?:\\?[{char}]|%(?i:{ord(char):02x}))" for char in token
    )
    return re.compile("".join(forms).encode())


def _host(base_url: str) -> str:
    """The host (and port) of the address.

    Raises:
        RunError: it is no address of the web; a password in it would be shown to everybody.
    """
    try:
        parts = urlsplit(base_url)
        host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    except ValueError:
        raise RunError("BRAPI_BASE_URL is not an address such as https://brapi.dev.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise RunError(
            "BRAPI_BASE_URL must start with https:// (or http://) and name a host, no user."
        )
    if parts.query or parts.fragment:
        raise RunError(
            "BRAPI_BASE_URL must have no query and no fragment: set the token in BRAPI_TOKEN."
        )
    return str(host)


def _cause(error: BaseException | None) -> str:
    """What the system says of a failure: the library's own words may repeat what was sent."""
    words = type(error).__name__
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            words = error.strerror
        error = error.__cause__ or error.__context__
    return words


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _rate_limit(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(f"x-ratelimit-{name}") or headers.get(f"ratelimit-{name}") or ""
    return int(value) if re.fullmatch(r"[0-9]{1,15}", value) else None


def _retry_after(value: str | None) -> float | None:
    """Seconds from either form of the header: a number, or a date."""
    if not value:
        return None
    if re.fullmatch(r"[0-9]+", value):
        return float(value)
    try:
        wait = parsedate_to_datetime(value) - datetime.now(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, wait.total_seconds())
