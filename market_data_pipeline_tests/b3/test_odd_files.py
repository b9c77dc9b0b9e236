"""Files that are not what they should be: one sentence and nothing stored, or read rightly."""

import ssl
import subprocess
import time
from pathlib import Path

import pytest

from market_data_pipeline.b3 import files
from market_data_pipeline.b3.files import B3Error, B3History
from market_data_pipeline.settings import settings
from market_data_pipeline_tests.b3.conftest import Official
from market_data_pipeline_tests.b3.files import (
    FileServer,
    cotahist,
    record,
    serve_files,
    session_file,
    zipped,
)
from market_data_pipeline_tests.observed import checks, failure_of

NAME, TEXT = "COTAHIST_D17112026.ZIP", "COTAHIST_D17112026.TXT"
LINES = cotahist(record(), record("VALE3", 62.80)).splitlines(keepends=True)
WHOLE, TRAILER = "".join(LINES), LINES[-1]

# What B3 serves (a text is zipped, a number is a status), and why it cannot be used.
UNUSABLE: dict[str, tuple[str | bytes | int, str]] = {
    "trailer missing": (WHOLE.replace(TRAILER, ""), "it ends after 2 records"),
    "cut in a record": (WHOLE[:600], "line 3 is no record of 245 characters"),
    "the ZIP is cut": (zipped(WHOLE)[:-40], "not a zip file"),
    "the ZIP is damaged": (zipped(WHOLE).replace(b"COTA", b"KOTA"), "holds 0 files"),
    "a bit is wrong": (bytes([*zipped(WHOLE)[:90], 255, *zipped(WHOLE)[91:]]), "cannot be used"),
    "fewer records than it says": (
        WHOLE.replace(LINES[1], ""),
        "it has 1 records, but its last line says 00000000004",
    ),
    "a header of an earlier day": (
        WHOLE.replace("BOVESPA 20261117", "BOVESPA 20261116"),
        "its header is of 2026-11-16, before its records of 2026-11-17",
    ),
    "one record of another day": (
        cotahist(record(), record("VALE3", day="20261116")),
        "it has records of 2026-11-16",
    ),
    "a longer record": (WHOLE.replace("PETR4", "PETR4 "), "line 2 is no record"),
    "a shorter record": (WHOLE.replace("PETR4 ", "PETR4"), "line 2 is no record"),
    "UTF-8": (WHOLE.replace("PETROBRAS ", "PETROBRÁS ".encode().decode("latin-1")), "line"),
    "two records of a ticker": (
        cotahist(record(), record(close=40.0)),
        "line 3 is a second record of PETR4",
    ),
    "no record": (cotahist(), "it ends after 0 records"),
    "a price without digits": (WHOLE.replace("00004110", "0000411-"), "lacks a number"),
    "a factor of 0": (cotahist(record(factor=0)), "line 2 (PETR4) lacks a number"),
    "a close of 0": (cotahist(record(close=0.0, low=0.0)), "(PETR4) has a close out of its range"),
    "a close above the highest price": (
        cotahist(record(close=411.0, high=41.5)),
        "line 2 (PETR4) has a close out of its range",
    ),
    "an open below the lowest price": (
        WHOLE.replace("0000000004110", "0000000000000", 1),
        "line 2 (PETR4) has an open out of its range",
    ),
    "an average above the highest price": (
        cotahist(record(average=99.0)),
        "line 2 (PETR4) has an average out of its range",
    ),
    "cruzeiros": (WHOLE.replace("R$  ", "CR$ "), "line 2 (PETR4) is not in R$"),
    "a record after the end": (WHOLE + LINES[1], "line 5 is no record"),
    "HTML with status 200": (b"<html>Manutencao</html>", "not a zip file"),
    "two files of prices": (zipped(WHOLE, COTAHIST_OLD=WHOLE), "it holds 2 files of prices"),
    "status 500": (500, "it answered 500"),
    "status 403": (403, "it answered 403"),
    "a redirect": (302, "it answered 302"),
    "status 404": (404, "B3 has no COTAHIST_D17112026.ZIP"),
}
READ: dict[str, str | bytes] = {
    "as B3 writes it": WHOLE,
    "LF": WHOLE.replace("\r\n", "\n"),
    "neither header nor trailer": "".join(LINES[1:-1]),
    "header missing": "".join(LINES[1:]),
    "header and trailer without blanks": "\r\n".join(line.strip() for line in LINES),
    "an empty line at the end": f"{WHOLE}\r\n\x1a",
    "a trailer that counts records alone": WHOLE.replace(
        TRAILER, TRAILER.replace("00000000004", "00000000002")
    ),
    "made the next night": WHOLE.replace("BOVESPA 20261117", "BOVESPA 20261118"),
    "no extension": zipped(WHOLE, "COTAHIST.D17112026"),
    "in a folder, beside a note": zipped(WHOLE, f"SerHist/{TEXT}", **{"LEIAME.TXT": "leia"}),
    "packed again, with a folder": zipped(WHOLE, **{"COTAHIST/": ""}),
    "packed again on a Mac": zipped(WHOLE, **{f"__MACOSX/._{TEXT}": "Mac OS X"}),
    "fractional market, options, forwards": cotahist(
        *(record(close=1.0, market=each) for each in ("020", "070", "030")), record()
    ),
    "an accent": WHOLE.replace("PETROBRAS", "PETROBRÁS"),
}


def as_served(content: str | bytes | int) -> bytes | int:
    return zipped(content) if isinstance(content, str) else content


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_is_one_sentence(name: str, b3: FileServer) -> None:
    content, sentence = UNUSABLE[name]
    b3.files[NAME] = as_served(content)

    with pytest.raises(B3Error) as refused:
        B3History(b3.url, pause=0.001).sessions("2026-11-17", ["PETR4", "VALE3"])

    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", READ)
def test_what_is_whole_is_read(name: str, b3: FileServer) -> None:
    b3.files[NAME] = as_served(READ[name])

    (found,) = B3History(b3.url).sessions("2026-11-17", ["PETR4"]).values()

    assert found["PETR4"]["close"] == 41.10


def test_characters_that_cannot_be_printed_are_left_out(b3: FileServer) -> None:
    b3.files[NAME] = zipped(cotahist(record(name="PETRO\0\x1b[31m", kind="ON\x85   NM")))

    (found,) = B3History(b3.url).sessions("2026-11-17", ["PETR4"]).values()

    assert (found["PETR4"]["name"], found["PETR4"]["kind"]) == ("PETRO  [31m", "ON    NM")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            zipped(cotahist(record(day="20261113"))[:400]),
            "cannot be used: line 2 is no record of 245 characters.",
        ),
        (
            403,
            "could not be downloaded from B3 in 3 attempts (it answered 403): check "
            "B3_HISTORY_URL, B3_CA_BUNDLE (for an SSLError) and the network, then materialize the "
            "session again.",
        ),
    ],
)
def test_nothing_is_stored_of_an_odd_file_and_the_others_of_its_range_are(
    answer: bytes | int, why: str, official: Official
) -> None:
    others = {"2026-11-16", "2026-11-17"}
    for day in others:
        official.b3.files |= session_file(day)
    official.b3.files["COTAHIST_D13112026.ZIP"] = answer

    result = official("2026-11-13", "2026-11-17")

    assert failure_of(result, "official_close") == (
        f"No prices of B3 are stored for 2026-11-13: COTAHIST_D13112026.ZIP {why}"
    )
    assert checks(result).keys() == {"closes_match", "calendar_matches"}
    assert official.documents().keys() == {f"PETR4|{day}" for day in others}
    assert {path.stem for path in (official.pipeline.folder / "official_close").iterdir()} == others
    done = result.asset_materializations_for_node("official_close")
    assert {each.partition for each in done} == others


@pytest.mark.parametrize("limit", ["LARGEST_ZIP", "LARGEST_FILE"])
def test_a_zip_bomb_is_refused(limit: str, b3: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, limit, 1_000)
    b3.files[NAME] = zipped("0" * 2**22)

    with pytest.raises(B3Error, match="too large"):
        B3History(b3.url).sessions("2026-11-17", ["PETR4"])


def test_a_body_that_drips_is_given_up(b3: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SECONDS", 0.2)
    b3.files[NAME], b3.drip = zipped(WHOLE), 0.01

    with pytest.raises(B3Error, match=r"3 attempts \(it took more than 0.2 s\)"):
        B3History(b3.url, pause=0.001).sessions("2026-11-17", ["PETR4"])
    assert b3.asked == [NAME] * 3


def test_a_body_that_is_cut_is_asked_for_again_and_all_requests_are_paced(
    b3: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    b3.files[NAME], b3.cuts = zipped(WHOLE), 1
    history, slept = B3History(b3.url, pause=1_000), list[float]()
    monkeypatch.setattr(time, "sleep", slept.append)

    for _ in range(2):
        assert history.sessions("2026-11-17", ["PETR4"])

    assert b3.asked == [NAME] * 3
    # After a second attempt it is twice as long.
    assert [round(seconds, -2) for seconds in slept if seconds > 1] == [1_000, 2_000]


def test_a_server_is_verified_by_the_bundle_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, bundle = tmp_path / "key.pem", tmp_path / "bundle.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {key} -out {bundle}"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(bundle, key)

    with serve_files(context) as server:
        server.files[NAME] = zipped(WHOLE)
        with pytest.raises(B3Error, match="B3_CA_BUNDLE \\(for an SSLError\\)"):
            B3History(server.url, pause=0.001).sessions("2026-11-17", ["PETR4"])
        monkeypatch.setenv("B3_CA_BUNDLE", str(bundle))
        settings.cache_clear()
        assert B3History(server.url).sessions("2026-11-17", ["PETR4"])
        assert server.asked == [NAME]
