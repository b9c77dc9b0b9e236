"""Users and passwords: SCRAM, on a server that has users.

Set TEST_MONGO_LOGIN_URI to the address of one, with a user and a password that may write. MongoDB
with access control does, and so does FerretDB:

    ferretdb --handler=sqlite --test-enable-new-auth --setup-database=admin \\
        --setup-username=ann --setup-password='p@ss' --telemetry=disable
    TEST_MONGO_LOGIN_URI='mongodb://ann:p%40ss@127.0.0.1:27017/' pytest -k login
"""

import os
from urllib.parse import quote_plus, unquote_plus, urlsplit

import pandas as pd
import pytest

from dagster_mongo import DagsterMongoError, MongoAuthenticationError, MongoResource

from .direct import Direct

NO_LOGIN = "a server with users: set TEST_MONGO_LOGIN_URI to its address with user and password"


@pytest.fixture(params=["SCRAM-SHA-256", "SCRAM-SHA-1"])
def login_uri(request: pytest.FixtureRequest) -> str:
    uri = os.environ.get("TEST_MONGO_LOGIN_URI")
    if not uri:
        pytest.skip(NO_LOGIN)
    separator = "&" if "?" in uri else "?"
    return f"{uri}{separator}authMechanism={request.param}"


def test_a_login_stores_and_loads(login_uri: str) -> None:
    direct = Direct(login_uri, metadata={"mongo/mode": "upsert", "mongo/key": ["_id"]})
    for n in (1, 2):
        direct.store(pd.DataFrame({"_id": ["a"], "n": [n]}))
    assert direct.load().to_dict("list") == {"_id": ["a"], "n": [2]}
    direct.clean()


def test_a_login_by_client_options(login_uri: str) -> None:
    address = urlsplit(login_uri)
    options = {
        "username": unquote_plus(address.username or ""),
        "password": unquote_plus(address.password or ""),
    }
    host, port = address.hostname, address.port
    with MongoResource(host=host, port=port, database="x", client_options=options) as mongo:
        assert mongo.get_collection("none").find_one() is None


@pytest.mark.parametrize("wrong", ["the wrong one", "/@:%"])
def test_a_wrong_password_is_refused_and_not_shown(login_uri: str, wrong: str) -> None:
    password = urlsplit(login_uri).password or ""
    uri = login_uri.replace(f":{password}@", f":{quote_plus(wrong)}@")
    with pytest.raises(MongoAuthenticationError, match="Check the user name") as caught:
        MongoResource(uri=uri, database="x").get_client()
    assert wrong not in str(caught.value)


def test_no_login_is_an_error_of_its_own(login_uri: str) -> None:
    address = urlsplit(login_uri)
    uri = f"mongodb://{address.hostname}:{address.port}/"
    with pytest.raises(DagsterMongoError), MongoResource(uri=uri, database="x") as mongo:
        Direct(mongo.uri or "").store(pd.DataFrame({"a": [1]}))
