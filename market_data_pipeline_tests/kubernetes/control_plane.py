"""A Kubernetes control plane on the loopback: etcd, the API server and the controllers, no node.

The API server and the controllers are Kubernetes' own, built from `control-plane/`; etcd is the
machine's.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

from kubernetes import client
from urllib3.exceptions import HTTPError

from market_data_pipeline_dev.process import Child
from market_data_pipeline_tests.supervised import free_ports, wait_until

PROGRAM = Path(sys.prefix) / "control-plane"
# What a Deployment, a Job and a ServiceAccount need, and the end of what they own.
CONTROLLERS = (
    "deployment-controller,replicaset-controller,job-controller,ttl-after-finished-controller,"
    "serviceaccount-controller,root-ca-certificate-publisher-controller,garbage-collector-controller"
)


class ControlPlane:
    """Runs while the context lasts; all that it knows is in `folder`.

    Args:
        folder: of its data, keys and logs; it is there and empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._etcd, self._peers, self.port, self._controllers = free_ports(4)
        self._admin = secrets.token_hex(16)
        self._running: dict[str, Child] = {}

    def __enter__(self) -> Self:
        key = self._folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], capture_output=True, check=True)
        tokens = self._folder / "tokens.csv"
        tokens.write_text(f'{self._admin},admin,admin,"system:masters"\n')
        try:
            self._start_etcd()
            self.start_api()
            self._start_controllers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed([*self._running.values()]):
            child.stop()

    @property
    def certificate(self) -> Path:
        """Of the authority that signed the API server's own, which the server made itself."""
        return self._folder / "certificates" / "apiserver.crt"

    def api(self, token: str | None = None) -> client.ApiClient:
        """A client with this token, or with every right."""
        configuration = client.Configuration(
            host=f"https://127.0.0.1:{self.port}",
            api_key={"BearerToken": token or self._admin},
            api_key_prefix={"BearerToken": "Bearer"},
        )
        configuration.ssl_ca_cert = str(self.certificate)
        configuration.no_proxy = "127.0.0.1"
        return client.ApiClient(configuration)

    def stop_api(self) -> None:
        """As in an upgrade of the control plane: what runs on the nodes goes on."""
        self._running.pop("kube-apiserver").stop()

    def start_api(self) -> None:
        """Starts the API server and waits until it is ready."""
        self._start(
            "kube-apiserver",
            [str(PROGRAM), "kube-apiserver"],
            etcd_servers=f"http://127.0.0.1:{self._etcd}",
            bind_address="127.0.0.1",
            advertise_address="127.0.0.1",
            endpoint_reconciler_type="none",
            secure_port=self.port,
            cert_dir=self.certificate.parent,
            service_cluster_ip_range="10.0.0.0/24",
            service_account_issuer="https://kubernetes.default.svc",
            service_account_key_file=self._folder / "service-accounts.key",
            service_account_signing_key_file=self._folder / "service-accounts.key",
            token_auth_file=self._folder / "tokens.csv",
            anonymous_auth="false",
            authorization_mode="RBAC",
        )
        wait_until(self._is_ready, "the API server is ready")

    def _start_etcd(self) -> None:
        program = shutil.which("etcd")
        if program is None:
            raise RuntimeError("etcd is not installed: Debian's package is `etcd-server`")
        peers, clients = (f"http://127.0.0.1:{port}" for port in (self._peers, self._etcd))
        self._start(
            "etcd",
            [program],
            data_dir=self._folder / "etcd",
            listen_client_urls=clients,
            advertise_client_urls=clients,
            listen_peer_urls=peers,
            initial_advertise_peer_urls=peers,
            initial_cluster=f"default={peers}",
        )

    def _start_controllers(self) -> None:
        kubeconfig = self._folder / "admin.kubeconfig"
        server = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.certificate),
        }
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": server}],
                    "users": [{"name": "admin", "user": {"token": self._admin}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                    "current-context": "test",
                }
            )
        )
        self._start(
            "kube-controller-manager",
            [str(PROGRAM), "kube-controller-manager"],
            kubeconfig=kubeconfig,
            bind_address="127.0.0.1",
            secure_port=self._controllers,
            cert_dir=self.certificate.parent,
            leader_elect="false",
            controllers=CONTROLLERS,
            root_ca_file=self.certificate,
            service_account_private_key_file=self._folder / "service-accounts.key",
        )

    def _start(self, name: str, command: list[str], **flags: object) -> None:
        arguments = [f"--{flag.replace('_', '-')}={value}" for flag, value in flags.items()]
        log = self._folder / f"{name}.log"
        self._running[name] = Child(name, [*command, *arguments], None, log)

    def _is_ready(self) -> bool:
        self._running["etcd"].check()
        self._running["kube-apiserver"].check()
        with suppress(OSError, client.ApiException, HTTPError), self.api() as api:
            client.CoreV1Api(api).list_namespace()
            return True
        return False
