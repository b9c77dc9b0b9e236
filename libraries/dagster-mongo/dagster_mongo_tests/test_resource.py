"""One client for a resource's life, and errors that say what is wrong but no password."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pandas as pd
import pytest
from pymongo.errors import InvalidOperation

from dagster_mongo import (
    DagsterMongoError,
    MongoAuthenticationError,
    MongoConnectionError,
    MongoPandasIOManager,
    MongoResource,
    MongoSettingsError,
)

from .conftest import DATABASE, Store

PASSWORD = "s3cr3t"


def of_its_own() -> dict[str, Any]:
    """Settings that no other test has, so that no other test shares the client."""
    return {"client_options": {"appName": uuid4().hex}}


def run_with(resource: MongoResource, act: Callable[[MongoResource], Any]) -> bool:
    @dg.op
    def use(mongo: MongoResource) -> None:
        act(mongo)

    @dg.job(resource_defs={"mongo": resource})
    def job() -> None:
        use()

    return job.execute_in_process(raise_on_error=False).success


@pytest.mark.parametrize("fails", [False, True])
def test_one_client_which_is_closed_whether_or_not_the_step_fails(uri: str, fails: bool) -> None:
    clients = []

    def act(mongo: MongoResource) -> None:
        clients.extend([mongo.get_client(), mongo.get_client()])
        assert mongo.get_database().name == DATABASE
        assert mongo.get_collection("some").count_documents({}) == 0
        if fails:
            raise RuntimeError

    assert run_with(MongoResource(uri=uri, database=DATABASE, **of_its_own()), act) is not fails
    assert clients[0] is clients[1]
    with pytest.raises(InvalidOperation):
        clients[0].admin.command("ping")


def test_the_io_manager_closes_its_client(store: Store) -> None:
    clients = []
    mongo = MongoResource(uri=store.uri, database=DATABASE, **of_its_own())

    class Seen(MongoPandasIOManager):
        def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
            super().handle_output(context, obj)
            clients.append(self.mongo.get_client())

    dg.materialize(
        [store.asset(pd.DataFrame({"a": [1]}))], resources={"io_manager": Seen(mongo=mongo)}
    )
    with pytest.raises(InvalidOperation):
        clients[0].admin.command("ping")


def test_a_resource_and_its_io_managers_share_a_client(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    new_client = MongoResource._new_client

    def counted(self: MongoResource) -> Any:
        made.append(new_client(self))
        return made[-1]

    monkeypatch.setattr(MongoResource, "_new_client", counted)
    mongo = MongoResource(uri=uri, database=DATABASE, **of_its_own())

    @dg.asset(metadata={"mongo/collection": "shared_client"})
    def frame(mongo: MongoResource) -> pd.DataFrame:
        mongo.get_client()
        return pd.DataFrame({"a": [1]})

    @dg.asset
    def reader(mongo: MongoResource, frame: pd.DataFrame) -> None:
        assert mongo.get_collection("shared_client").count_documents({}) == len(frame)

    resources = {"mongo": mongo, "io_manager": MongoPandasIOManager(mongo=mongo)}
    assert dg.materialize([frame], resources=resources).success
    assert len(made) == 1
    with pytest.raises(InvalidOperation):
        made[0].admin.command("ping")
    with mongo:
        mongo.get_collection("shared_client").drop()


def test_outside_dagster_it_is_a_context_manager(uri: str) -> None:
    own = of_its_own()
    with MongoResource(uri=uri, database=DATABASE, **own) as mongo:
        client = mongo.get_client()
        with MongoResource(uri=uri, database=DATABASE, **own) as other:
            assert other.get_client() is client
        assert client.admin.command("ping")["ok"] == 1
        assert mongo.get_database().name == DATABASE
    with pytest.raises(InvalidOperation):
        client.admin.command("ping")


def test_other_settings_have_another_client(uri: str) -> None:
    with (
        MongoResource(uri=uri, database="x") as one,
        MongoResource(uri=uri, database="x", client_options={"appName": "two"}) as two,
    ):
        assert one.get_client() is not two.get_client()


def test_the_ui_hides_what_may_be_secret() -> None:
    schema = MongoResource.to_config_schema().as_field().config_type.fields
    secret = {name for name, field in schema.items() if field.is_secret}
    assert secret == {"uri", "client_options"}


def test_every_setting_has_a_description() -> None:
    for kind in (MongoResource, MongoPandasIOManager):
        for name, field in kind.model_fields.items():
            assert field.description or name == "mongo", name


def test_no_client_is_made_before_it_is_needed() -> None:
    mongo = MongoResource(uri="mongodb://127.0.0.1:1", database="x")
    assert run_with(mongo, lambda mongo: None)
    mongo.close()


def test_host_and_port(uri: str) -> None:
    host, _, port = uri.removeprefix("mongodb://").partition("/")[0].partition(":")
    mongo = MongoResource(
        host=host, port=int(port), database="x", client_options={"directConnection": True}
    )
    assert mongo.get_client().admin.command("ping")["ok"] == 1
    assert mongo.address == f"{host}:{port}"
    mongo.close()


def test_the_address_says_how_long_a_server_is_looked_for(uri: str) -> None:
    mongo = MongoResource(uri=f"{uri}{'&' if '?' in uri else '/?'}serverSelectionTimeoutMS=1234")
    assert mongo.get_client().options.server_selection_timeout == 1.234
    mongo.close()


def test_a_uri_from_the_environment(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_MONGO", uri)
    mongo = MongoResource(uri=dg.EnvVar("SOME_MONGO"), database="x")
    assert run_with(mongo, lambda mongo: mongo.get_client().admin.command("ping"))


def error_of(uri: str | None = None, **settings: Any) -> DagsterMongoError:
    settings = {"server_selection_timeout_seconds": 0.3, **settings}
    mongo = MongoResource(uri=uri, database="x", **settings)
    with pytest.raises(DagsterMongoError) as caught:
        mongo.get_client()
    shown = "".join(traceback.format_exception(caught.value)) + repr(mongo)
    assert PASSWORD not in shown
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def test_a_server_that_is_not_there() -> None:
    error = error_of(f"mongodb://bob:{PASSWORD}@127.0.0.1:1/?authSource=admin")
    assert type(error) is MongoConnectionError
    assert str(error).startswith("No MongoDB server answered at 127.0.0.1:1: 127.0.0.1:1: [Errno")


@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
def test_a_host_that_does_not_exist(scheme: str) -> None:
    error = error_of(f"{scheme}://bob:{PASSWORD}@no.such-host.invalid")
    assert type(error) is MongoConnectionError
    assert "No such host in" in str(error)
    assert "no.such-host.invalid" in str(error)


@pytest.mark.services
def test_credentials_that_are_refused(real_mongo: str) -> None:
    error = error_of(real_mongo.replace("://", f"://bob:{PASSWORD}@"))
    assert type(error) is MongoAuthenticationError
    assert "refused the credentials" in str(error)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (f"mongodb://bob:{PASSWORD}/x@host/db", "percent-encoded"),
        (f"mongodb://bob:{PASSWORD}@x@host/db", "percent-encoded"),
        (f"mongodb://bob:123?{PASSWORD}@host/db", "percent-encoded"),
        (f"bob:{PASSWORD}@host", "no valid connection string"),
        (f"http://bob:{PASSWORD}@host", "no valid connection string"),
        (f"mongodb://bob:{PASSWORD}@host:port", "does not accept"),
        (f"mongodb://bob:{PASSWORD}%zz%@host", ""),
        (f"mongodb://bob:{PASSWORD}@host:99999", "does not accept"),
    ],
)
def test_a_malformed_uri_is_not_repeated(uri: str, message: str) -> None:
    assert message in str(error_of(uri))


def test_an_at_sign_in_the_options_is_none_of_the_credentials() -> None:
    uri = f"mongodb://bob:{PASSWORD}@127.0.0.1:1/?appName=@shop@"
    assert "No MongoDB server answered at 127.0.0.1:1" in str(error_of(uri))


@pytest.mark.parametrize("option", ["tlsCAFile", "tlsCertificateKeyFile"])
def test_a_file_of_the_address_that_is_not_there(option: str) -> None:
    error = error_of(f"mongodb://bob:{PASSWORD}@127.0.0.1:1/?tls=true&{option}=/not/there.pem")
    assert type(error) is MongoSettingsError
    assert "No such file or directory" in str(error)


def test_options_that_the_client_does_not_know() -> None:
    options = {"nosuch": 1, "password": PASSWORD}
    error = error_of("mongodb://127.0.0.1:1", client_options=options)
    assert type(error) is MongoSettingsError
    assert "Unknown option: nosuch" in str(error)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "it has no address"),
        ({"uri": "", "host": ""}, "it has no address"),
        ({"uri": "mongodb://y", "host": "x"}, "not both"),
    ],
)
def test_exactly_one_address(settings: dict[str, Any], message: str) -> None:
    assert message in str(error_of(**settings))


def test_an_error_in_a_run_shows_no_password_anywhere(tmp_path: Path) -> None:
    """Everything that Dagster keeps of a run: events, logs of the steps, its databases."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        uri = f"mongodb://bob:{PASSWORD}@127.0.0.1:1"
        mongo = MongoResource(uri=uri, database="x", server_selection_timeout_seconds=0.1)
        result = dg.materialize(
            [Store(uri).asset(pd.DataFrame({"a": [1]}))],
            resources={"io_manager": MongoPandasIOManager(mongo=mongo)},
            instance=instance,
            raise_on_error=False,
        )
        assert not result.success
        assert "No MongoDB server answered" in str(result.all_events)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert [path for path in kept if PASSWORD.encode() in path.read_bytes()] == []
