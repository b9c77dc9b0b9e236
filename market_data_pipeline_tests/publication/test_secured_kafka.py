"""A broker that asks for TLS, a password and rights."""

import logging
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from market_data_pipeline.publication.checks import topic_keeps_prices
from market_data_pipeline.publication.errors import PublicationError
from market_data_pipeline.publication.kafka import Kafka
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline
from market_data_pipeline_tests.observed import checks
from market_data_pipeline_tests.publication.helpers import a_kafka, a_window, read
from market_data_pipeline_tests.services.kafka_broker import KafkaCluster
from market_data_pipeline_tests.supervised import wait_until

pytestmark = pytest.mark.services

PASSWORD = "correct-horse-battery"
STORE_PASSWORD = "store-password"


@dataclass(frozen=True)
class Secured:
    """A broker whose plain listener is for its owner, and the other for the user `writer`."""

    cluster: KafkaCluster
    certificate: Path

    @property
    def config(self) -> dict[str, str]:
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "writer",
            "sasl.password": PASSWORD,
            "ssl.ca.location": str(self.certificate),
        }

    def writer(self, topic: str, **changes: str) -> Kafka:
        return a_kafka(
            self.cluster.extra_address,
            topic,
            f"id-{topic}",
            timeout_seconds=5,
            client_properties={**self.config, **changes},
        )

    def allow(self, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap_servers})
        literal, allowed = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
        acls = [
            AclBinding(kind, name, literal, "User:writer", "*", operation, allowed)
            for operation in operations
        ]
        for future in admin.create_acls(acls).values():
            future.result()
        # The broker follows its controller a moment later.
        every = AclOperation.ANY
        any_of_it = AclBindingFilter(kind, name, literal, "User:writer", "*", every, allowed)
        wait_until(
            lambda: set(acls) <= set(admin.describe_acls(any_of_it).result()), "the broker knows"
        )


@pytest.fixture(scope="module")
def secured(kafka_services: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    keystore, certificate = folder / "broker.p12", folder / "broker.pem"
    store = ["-keystore", str(keystore), "-storepass", STORE_PASSWORD, "-alias", "broker"]
    _keytool(
        "-genkeypair", *store, "-keyalg", "EC", "-dname", "CN=broker", "-ext", "SAN=IP:127.0.0.1"
    )
    _keytool("-exportcert", *store, "-rfc", "-file", str(certificate))
    users = f'username="admin" password="{PASSWORD}" user_writer="{PASSWORD}"'
    properties = {
        "ssl.keystore.location": str(keystore),
        "ssl.keystore.password": STORE_PASSWORD,
        "ssl.keystore.type": "PKCS12",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
    }
    with KafkaCluster(folder / "cluster", 1, properties, "SASL_SSL") as cluster:
        yield Secured(cluster, certificate)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"sasl.password": "wrong-horse"},
            r"rejected this client \(_AUTHENTICATION.*check KAFKA_CONFIG_",
        ),
        ({"ssl.ca.location": "probe"}, r"_SSL.*certificate verify failed.*SSL_CA_LOCATION"),
        ({"security.protocol": "PLAINTEXT"}, "KAFKA_CONFIG_SECURITY_PROTOCOL"),
    ],
)
def test_what_is_wrong_with_the_access_is_an_error_at_once_and_no_password_is_shown(
    secured: Secured,
    topic: str,
    changes: dict[str, str],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    started = time.monotonic()
    with pytest.raises(PublicationError, match=said) as caught:
        secured.writer(topic, **changes).publish(a_window())
    assert time.monotonic() - started < 30  # seconds; librdkafka goes on for minutes
    shown = f"{caught.value} {caught.value.__cause__} {caplog.text}"
    assert not [password for password in ("wrong-horse", PASSWORD) if password in shown]


def test_runs_without_a_right_say_which_until_they_have_all(
    pipeline: Pipeline, secured: Secured
) -> None:
    pipeline.bootstrap_servers = secured.cluster.extra_address
    pipeline.kafka = {
        "timeout_seconds": 5,
        "transactional_id": f"id-{pipeline.topic}",
        "client_properties": secured.config,
    }
    topic, identity = pipeline.topic, f"id-{pipeline.topic}"

    def said() -> str:
        run = pipeline.run(LIVE_ON_TUESDAY, select=select)
        assert not run.success
        return checks(run)["every_quote_delivered"][1].partition(" was not published: ")[2]

    select = "*"
    the_topic = r"TOPIC_AUTHORIZATION_FAILED: .*\): grant this user WRITE and DESCRIBE on the topic"
    assert re.match(rf"Topic {topic} of Kafka at .* cannot be used \({the_topic}", said())
    select = "kafka_publication"
    # The topic is created by the next run.
    secured.allow(ResourceType.TOPIC, topic, AclOperation.DESCRIBE, AclOperation.CREATE)
    assert re.match(
        rf"Kafka opened no transaction for {identity} \(TRANSACTIONAL_ID_AUTHORIZATION_FAILED: .*"
        r"\): grant this user WRITE and DESCRIBE on the transactional id, or turn transactions off "
        r"with KAFKA_TRANSACTIONS=false\.$",
        said(),
    )
    secured.allow(ResourceType.TRANSACTIONAL_ID, identity, AclOperation.WRITE)
    assert re.search(rf"rolled back and consumers see none of them \({the_topic}", said())
    secured.allow(ResourceType.TOPIC, topic, AclOperation.WRITE)
    assert pipeline.run(LIVE_ON_TUESDAY, select=select).success
    assert len(read(secured.cluster.bootstrap_servers, topic)) == len(pipeline.documents())
    result = topic_keeps_prices(secured.writer(topic))
    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed
    assert "grant DESCRIBE_CONFIGS on the topic to know it" in (result.description or "")


def _keytool(*arguments: str) -> None:
    subprocess.run(["keytool", *arguments], check=True, capture_output=True)
