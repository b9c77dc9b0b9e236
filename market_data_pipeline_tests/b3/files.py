"""Files as B3 makes them, and a server of them."""

import io
import ssl
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from market_data_pipeline_tests.serving import serving

TUESDAY = "20261117"


def record(ticker: str = "PETR4", close: float = 41.10, day: str = TUESDAY, **given: Any) -> str:
    """A record of the cash market; prices in BRL, `low` and `high` a real from the close."""
    fields: dict[str, Any] = {
        "bdi": "02",
        "market": "010",
        "name": "PETROBRAS",
        "kind": "PN      N2",
        "factor": 1,
        "distribution": 185,
        **given,
    }
    prices = {"close": close, "low": close - 1, "high": close + 1, "open": close, "average": close}
    fields |= {name: round(100 * given.get(name, price)) for name, price in prices.items()}
    return (
        "01{day}{bdi}{ticker:<12}{market}{name:<12}{kind:<10}   R$  {open:013}{high:013}{low:013}"
        "{average:013}{close:013}{close:013}{close:013}00007{volume:018}{brl:018}{zero:013}"
        "099991231{factor:07}{zero:013}BRPETRACNPR6{distribution:03}"
    ).format(ticker=ticker, day=day, volume=1_000, brl=4_110_000, zero=0, **fields)


def cotahist(*records: str, day: str = TUESDAY, end: str = "\r\n") -> str:
    """The text of a file with header and trailer."""
    name = f"COTAHIST.{day[:4]}BOVESPA {day}"
    lines = [f"00{name}", *records, f"99{name}{len(records) + 2:011}"]
    return "".join(f"{line:<245}{end}" for line in lines)


def session_file(day: str, *records: str) -> dict[str, bytes | int]:
    """B3's file of a session (`2026-11-17`) by its name; with one record by default."""
    digits = day.replace("-", "")
    name = f"COTAHIST_D{digits[6:]}{digits[4:6]}{digits[:4]}"
    text = cotahist(*(records or [record(day=digits)]), day=digits)
    return {f"{name}.ZIP": zipped(text, f"{name}.TXT")}


def zipped(text: str, name: str = "COTAHIST_D17112026.TXT", **others: str) -> bytes:
    """A ZIP with the text under that name, and others under theirs."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, words in {name: text, **others}.items():
            archive.writestr(each, words.encode("latin-1"))
    return content.getvalue()


@dataclass
class FileServer:
    """What it serves, by name: bytes, or a status; and the names that it was asked for."""

    files: dict[str, bytes | int] = field(default_factory=dict)
    server: str = "Microsoft-IIS/10.0"
    cuts: int = 0
    """So many answers end in the middle."""
    drip: float = 0.0
    """Seconds from each byte to the next."""
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve_files(tls: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    """Serves files on a free port of the loopback; what is not there is answered with 404."""
    served = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            served.asked.append(name)
            found = served.files.get(name, 404)
            body = b"<html>no file</html>" if isinstance(found, int) else found
            self.send_response(found if isinstance(found, int) else 200)
            self.send_header("Content-Length", f"{len(body)}")
            self.end_headers()
            if served.cuts:
                served.cuts -= 1
                body = body[: len(body) // 2]
            with suppress(ConnectionError):
                for start in range(0, len(body), step := 1 if served.drip else 2**20):
                    self.wfile.write(body[start : start + step])
                    time.sleep(served.drip)

        def version_string(self) -> str:
            return served.server

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with serving(server):
        scheme = "https" if tls else "http"
        served.url = f"{scheme}://localhost:{server.server_port}/InstDados/SerHist"
        yield served
