"""One request to Brapi, and its answer, without the token in any text."""

from __future__ import annotations

import json
import math
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median_high
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from market_data_pipeline.brapi.errors import RunError, TemporaryError
from market_data_pipeline.market import clock
from market_data_pipeline.market.quote import origin_of
from market_data_pipeline.settings import Settings

NOT_SET = (
    "BRAPI_TOKEN is not set. Put your token into .env (BRAPI_TOKEN=…) or the environment of the "
    "code location, or unset BRAPI_BASE_URL and use `make dev` for the sandbox."
)
# What a bearer token is made of (RFC 6750).
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# Parsed JSON takes up to 100 bytes of memory for each `,` `:` `[` `{`, so their number is limited,
# too: to one for this many bytes of the largest answer.
BYTES_A_MARK = 12
TOO_LARGE = "the answer is larger than this request allows"
# No text that is used is longer: names and messages have bounds of their own below it.
LONGEST_TEXT = 1_000
# A shorter token is no secret, and may be a part of any word.
SHORTEST_SECRET = 8
# Of one character of the token, as `_in_any_form` finds it.
LONGEST_FORM = 14
# What requests and the libraries below it raise.
FAILURES = (requests.RequestException, HTTPError, OSError, ValueError, zlib.error)


@dataclass(frozen=True)
class Question:
    """What is asked for some tickers: a path, the parameters of its query, and how many bytes the
    answer may have, unpacked."""

    path: str
    parameters: Mapping[str, str]
    largest: int


@dataclass(frozen=True)
class Reply:
    """An HTTP answer: its body, which `Connection.json` parses, and the headers that are used.

    It was asked for at `asked_at` (UTC, to the millisecond). `origin` is the host that answered, or
    `brapi-sandbox` if it says that it is one. `retry_after` is in seconds; `quota_limit` and
    `quota_left` are requests in the usage window.
    """

    asked_at: datetime
    origin: str
    status: int
    content: bytearray
    retry_after: float | None
    quota_limit: int | None
    quota_left: int | None


@dataclass
class Account:
    """The quota by the answers to a client."""

    _said: list[int] = field(default_factory=list)
    _limits: list[int] = field(default_factory=list)

    def note(self, reply: Reply) -> None:
        """Takes over what an answer says, unless more is left than the limit."""
        left, limit = reply.quota_left, reply.quota_limit
        if left is not None and left <= (limit or left):
            self._said.append(left)
            if limit:
                self._limits.append(limit)

    @property
    def limit(self) -> int | None:
        """What most answers say."""
        return median_high(self._limits) if self._limits else None

    @property
    def spent(self) -> int:
        """How many requests the quota counted."""
        return len(self._said)

    @property
    def left(self) -> int | None:
        """The lowest rest, as answers come in any order; one far below the others is an error."""
        if not self._said:
            return None
        middle = median_high(self._said)
        return min(left for left in self._said if left >= middle / 2 - self.spent)


class Session(requests.Session):
    """Leaves redirects as they are; by itself, requests reads the whole body of one in any case."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: there is nowhere to go on to."""


class Connection:
    """Reuses up to `size` connections, and sends the token in a header and nowhere else.

    Raises:
        RunError: the token cannot be used; the text says what to set.
    """

    def __init__(self, settings: Settings, size: int) -> None:
        token = settings.brapi_token.get_secret_value()
        if not token:
            raise RunError(NOT_SET)
        if not TOKEN.fullmatch(token):
            raise RunError("BRAPI_TOKEN contains an invalid character: copy it again.")
        self._base_url = settings.brapi_base_url.rstrip("/")
        self.host = urlsplit(self._base_url).netloc.lower()
        self._texts = _Texts(token)
        self._session = Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.headers["Accept-Encoding"] = "gzip"
        # Without an auth of its own, requests would let a .netrc replace the header.
        self._session.auth = lambda request: request
        adapter = HTTPAdapter(pool_maxsize=size)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def get(self, question: Question, tickers: Sequence[str], seconds: float) -> Reply:
        """Sends one request; `seconds` limit each wait for the socket, and the whole body.

        Raises:
            TemporaryError: it took longer, the connection failed, or a body of status 200 was cut,
                too large or packed in a way that was not asked for.
        """
        until, asked_at = time.monotonic() + seconds, to_milliseconds(clock.utc_now())
        try:
            with self._session.get(
                self._base_url + question.path + ",".join(tickers),
                params=question.parameters,
                timeout=seconds,
                stream=True,
            ) as response:
                headers = response.headers
                try:
                    content = _content(response, question.largest, until)
                except (*FAILURES, TemporaryError):
                    if response.status_code == 200:
                        raise
                    content = bytearray()  # what the status and the headers say is known
                return Reply(
                    asked_at=asked_at,
                    origin=origin_of(self.host, headers),
                    status=response.status_code,
                    content=content,
                    retry_after=_retry_after(headers.get("Retry-After")),
                    quota_limit=_rate_limit(headers, "limit"),
                    quota_left=_rate_limit(headers, "remaining"),
                )
        except (requests.Timeout, TimeoutError):
            raise TemporaryError(f"no answer within {seconds:.3g} s") from None
        except FAILURES as error:
            raise TemporaryError(f"the connection failed: {_cause(error)}") from None

    def json(self, reply: Reply) -> Any:
        """The JSON of a body, with clean texts; None if it is not JSON, or contradicts itself.

        Parsing takes many times the size of the body in memory: parse one reply at a time.
        """
        try:
            return self._texts.clean(json.loads(reply.content, object_pairs_hook=_unambiguous))
        except (ValueError, RecursionError):
            return None

    def close(self) -> None:
        """Closes the connections that no request uses."""
        self._session.close()


class _Texts:
    """Cleans the texts of an answer, from the token in any form, too."""

    def __init__(self, token: str) -> None:
        self._shortest = len(token) if len(token) >= SHORTEST_SECRET else math.inf
        # A token that begins in what is used is found whole.
        self._looked_at = LONGEST_TEXT + LONGEST_FORM * len(token)
        self._token = re.compile("".join(map(_in_any_form, token)), re.IGNORECASE)

    def clean(self, value: Any) -> Any:
        """A parsed JSON value with each of its texts cleaned.

        Characters that cannot be printed (control and format characters, line separators) become
        spaces, and the token becomes `***`.
        """
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self.clean(each) for each in value]
        if isinstance(value, dict):
            return {self._text(name): self.clean(each) for name, each in value.items()}
        return value

    def _text(self, text: str) -> str:
        text = text[: self._looked_at]
        if not text.isprintable():
            text = "".join(char if char.isprintable() else " " for char in text)
        # No form of the token is shorter than the token.
        if len(text) >= self._shortest:
            text = self._token.sub("***", text)
        return text[:LONGEST_TEXT]


def to_milliseconds(instant: datetime) -> datetime:
    """The instant without its microseconds, as a BSON date and a Parquet file hold it."""
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def _content(response: requests.Response, largest: int, until: float) -> bytearray:
    packing = response.headers.get("Content-Encoding", "").strip().lower().removeprefix("x-")
    if packing not in ("", "identity", "gzip"):
        raise TemporaryError("the answer is packed in a way that was not asked for")
    gzip = zlib.decompressobj(wbits=31) if packing == "gzip" else None
    content = bytearray()
    # One read of the socket at a time, so that a body that comes byte by byte is given up.
    while chunk := response.raw.read1(65536, decode_content=False):
        content += gzip.decompress(chunk, largest + 1 - len(content)) if gzip else chunk
        if time.monotonic() >= until:
            raise TimeoutError
        # What follows the end of a packed body is kept, too.
        if len(content) + len(gzip.unused_data if gzip else b"") > largest:
            raise TemporaryError(TOO_LARGE)
    if gzip and not gzip.eof:
        raise TemporaryError("the answer was cut")
    if sum(map(content.count, b",:[{")) * BYTES_A_MARK > largest:
        raise TemporaryError(TOO_LARGE)
    return content


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError if a name has two values: either may be right."""
    found = dict(pairs)
    if len(found) < len(pairs) and any(found[name] != value for name, value in pairs):
        raise ValueError
    return found


def _cause(error: BaseException | None) -> str:
    """What the system says of a failure: the library's own words may repeat what was sent."""
    words = str(error) if isinstance(error, zlib.error) else type(error).__name__
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            words = error.strerror
        error = error.__cause__ or error.__context__
    return words


def _rate_limit(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(f"x-ratelimit-{name}") or headers.get(f"ratelimit-{name}") or ""
    return int(value) if re.fullmatch(r"[0-9]{1,15}", value) else None


def _retry_after(value: str | None) -> float | None:
    """Seconds from either form of the header: a number, or a date."""
    try:
        return float(Retry().parse_retry_after(value)) if value else None
    except (HTTPError, TypeError, ValueError, OverflowError):
        return None


def _in_any_form(char: str) -> str:
    """A pattern for a character as it is, or as JSON, an address or HTML may have escaped it."""
    code = f"{ord(char):02x}"
    in_html = rf"&#(?:0{{0,4}}{ord(char)}|x0{{0,4}}{code});"
    return rf"\\{{0,4}}(?:{re.escape(char)}|u00{code}|%(?:25){{0,2}}{code}|{in_html})"
