"""What goes over the wire, byte for byte, and the contract's files against it and each other."""

import json
import re
from datetime import datetime, timedelta, timezone
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from market_data_pipeline.publication.event import UpdatedAtFormat, quote_event
from market_data_pipeline_tests.publication.helpers import a_kafka, a_quote, read

CONTRACT = files("market_data_pipeline.publication") / "contract"


GOLDEN = (
    '{"ticker": "PETR4", "name": "Petróleo Brasileiro S.A. - Petrobras", '
    '"short_name": "PETROBRAS PN", "price": 35.5, "volume": 15234567, "updated_at": %s}'
)
# In Brasília: what is sent is in UTC.
FRACTION = datetime(2026, 11, 23, 10, 29, 58, 987654, timezone(timedelta(hours=-3)))


def a_file(name: str) -> Any:
    return json.loads((CONTRACT / name).read_text(encoding="utf-8"))


def value_schema() -> Draft202012Validator:
    schema = a_file("quote.schema.json")
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


@pytest.mark.parametrize(
    ("changes", "updated_at_format", "updated_at"),
    [
        ({}, "epoch", "1795440598"),
        ({}, "iso8601", '"2026-11-23T13:29:58.000Z"'),
        ({"updated_at": FRACTION}, "epoch", "1795440598"),
        ({"updated_at": FRACTION}, "iso8601", '"2026-11-23T13:29:58.987Z"'),
    ],
)
def test_the_value_byte_for_byte(
    changes: dict[str, Any], updated_at_format: UpdatedAtFormat, updated_at: str
) -> None:
    event = quote_event(a_quote(**changes), updated_at_format=updated_at_format)
    assert event.value.decode() == GOLDEN % updated_at


def test_id_tells_repeats_from_news() -> None:
    def ce_id(**changes: Any) -> bytes:
        return dict(quote_event(a_quote(**changes)).headers)["ce_id"]

    first = a_quote()
    assert ce_id() == ce_id(observed_at=first.observed_at + timedelta(hours=3), name=None)
    assert ce_id() != ce_id(window=1, updated_at=first.updated_at)
    assert ce_id() != ce_id(updated_at=first.updated_at + timedelta(seconds=1))
    assert ce_id() != ce_id(price=first.price + 0.01)
    assert ce_id() != ce_id(ticker="VALE3")


@pytest.mark.parametrize("updated_at_format", ["epoch", "iso8601"])
def test_what_is_on_the_wire_keeps_the_contract(
    bootstrap_servers: str, topic: str, updated_at_format: UpdatedAtFormat
) -> None:
    quotes = [
        a_quote("PETR4"),
        a_quote("BRCR11", volume=None, bar_volume=1200, name=None, source="intraday"),
        a_quote("VALE3", origin="brapi-sandbox"),
    ]
    events = [quote_event(quote, updated_at_format=updated_at_format) for quote in quotes]
    a_kafka(bootstrap_servers, topic).publish(events)
    seen = {one.event.key: one.event for one in read(bootstrap_servers, topic)}
    assert seen.keys() == {b"PETR4", b"BRCR11", b"VALE3"}
    schema = a_file("asyncapi.json")["components"]["schemas"]["headers"]
    sources = set()
    for event in seen.values():
        value_schema().validate(json.loads(event.value))
        headers = {name: value.decode() for name, value in event.headers}
        Draft202012Validator(schema).validate(headers)
        assert list(headers) == list(schema["properties"])
        sources.add((event.key, headers["ce_source"].rpartition("/")[2]))
    made_up = (b"VALE3", "made-up-quotes")
    assert sources == {(b"PETR4", "quotes"), (b"BRCR11", "quotes"), made_up}


@pytest.mark.parametrize(
    "change",
    [
        {"price": None},
        {"price": "35.50"},
        {"volume": 1.5},
        {"updated_at": 1795440598.5},
        {"updated_at": "2026-11-23T13:29:58Z"},
        {"ticker": ""},
        {"change": 0.1},
    ],
)
def test_the_schema_refuses_what_is_never_sent(change: dict[str, object]) -> None:
    value = json.loads(quote_event(a_quote()).value)
    with pytest.raises(ValidationError):
        value_schema().validate({**value, **change})


def test_the_examples_are_what_is_sent() -> None:
    epoch, iso8601 = a_file("asyncapi.json")["components"]["messages"]["quote"]["examples"]
    event = quote_event(a_quote())
    assert epoch["payload"] == json.loads(event.value)
    assert epoch["headers"] == {name: value.decode() for name, value in event.headers}
    event = quote_event(a_quote(), updated_at_format="iso8601")
    assert iso8601["payload"] == json.loads(event.value)


def test_the_document_is_asyncapi_3_and_its_references_resolve() -> None:
    document = a_file("asyncapi.json")
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    assert {operation["action"] for operation in document["operations"].values()} == {"send"}
    assert document["channels"]["quotes"]["address"] == "trading-assets-market-data-v1"
    references = re.findall(r'"\$ref": "(.*?)"', json.dumps(document))
    assert len(references) == 5
    for reference in references:
        name, _, pointer = reference.partition("#")
        node: Any = a_file(name) if name else document
        for step in pointer.strip("/").split("/") if pointer else []:
            node = node[step]
        assert node
