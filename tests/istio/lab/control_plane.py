"""etcd, kube-apiserver and istiod, within the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from .network import CONTROL_PLANE, HUB, SERVICE_RANGE, inside
from .processes import Process, run, wait

REPOSITORY = Path(__file__).parents[3]
MESH_CONFIG = REPOSITORY / "istio/meshconfig.yaml"

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: admin-token}}]
contexts: [{name: lab, context: {cluster: lab, user: admin}}]
current-context: lab
"""


class ControlPlane:
    def __init__(self, folder: Path, tools: Path, version: str) -> None:
        self.folder, self.tools, self.version = folder, tools, version
        self.istio = tools / f"istio-{version}"
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(KUBECONFIG)
        self.processes: list[Process] = []

    def start(self, crds: list[Path] | None = None) -> None:
        self._start_kubernetes()
        self.apply_files(self.istio / "istio-crds.yaml", *(crds or []), server_side=True)
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        self.kubectl("create", "namespace", "istio-system")
        self.set_mesh_config("ALLOW_ANY")
        self._start_istiod()

    def _start_kubernetes(self) -> None:
        folder = self.folder
        run(["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"])
        run(["openssl", "rsa", "-in", str(folder / "sa.key"), "-pubout", "-out", str(folder / "sa.pub")])
        (folder / "tokens.csv").write_text('admin-token,admin,1,"system:masters"\n')
        etcd = "http://127.0.0.1:2379"
        self._start(
            "etcd", "etcd", f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}", "--listen-peer-urls=http://127.0.0.1:2380",
        )  # fmt: skip
        self._start(
            "apiserver", self.tools / "kube/kube-apiserver", f"--etcd-servers={etcd}", "--secure-port=6443",
            "--bind-address=127.0.0.1", f"--advertise-address={CONTROL_PLANE}", f"--cert-dir={folder / 'certs'}", "--authorization-mode=RBAC",
            f"--token-auth-file={folder / 'tokens.csv'}", f"--service-account-key-file={folder / 'sa.pub'}",
            f"--service-account-signing-key-file={folder / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.local", f"--service-cluster-ip-range={SERVICE_RANGE}",
            # No controllers run here that would make the accounts that it asks for.
            "--disable-admission-plugins=ServiceAccount",
        )  # fmt: skip
        wait("the API server", lambda: self._alive() and self.kubectl("get", "--raw", "/readyz", check=False) == "ok")

    def _start_istiod(self) -> None:
        environment = {
            "POD_NAMESPACE": "istio-system", "POD_NAME": "istiod", "ENABLE_CA_SERVER": "false",
            "VALIDATION_WEBHOOK_CONFIG_NAME": "", "INJECTION_WEBHOOK_CONFIG_NAME": "",
            # Filters that only Istio's own build of Envoy has.
            "PILOT_ENABLE_METADATA_EXCHANGE": "false", "PILOT_ENABLE_ALPN_FILTER": "false",
        }  # fmt: skip
        self._start(
            "istiod", self.istio / "pilot-discovery", "discovery", f"--kubeconfig={self.kubeconfig}",
            # Where a pod of istiod's has the ConfigMap mounted. Without that file istiod asks for the ConfigMap itself.
            f"--meshConfig={self.folder / 'no-such-file'}",
            f"--grpcAddr={CONTROL_PLANE}:15010", "--httpAddr=127.0.0.1:8080",
            "--httpsAddr=", "--secureGRPCAddr=", "--monitoringAddr=127.0.0.1:15014", env=environment,
        )  # fmt: skip
        ready = inside(HUB, ["curl", "-sf", "-m", "5", "127.0.0.1:8080/ready"])
        wait("istiod", lambda: self._alive() and run(ready, check=False).returncode == 0)

    def _alive(self) -> bool:
        """Whether everything runs that was started; what ended by itself is told at once."""
        for process in self.processes:
            if not process.is_alive():
                raise AssertionError(f"{process.name} has ended\n{process.tail()}")
        return True

    def _start(self, name: str, program: str | Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        command = inside(HUB, [str(program), *arguments])
        self.processes.append(Process(name, command, self.folder, env))

    def set_mesh_config(self, mode: str, **fields: Any) -> None:
        """The project's own meshConfig, with what this mesh needs, where Istio keeps it; istiod watches it."""
        config = yaml.safe_load(MESH_CONFIG.read_text())
        config["defaultConfig"]["discoveryAddress"] = f"{CONTROL_PLANE}:15010"
        config |= {"enableAutoMtls": False, "outboundTrafficPolicy": {"mode": mode}, **fields}
        self.set_mesh_text(yaml.safe_dump(config))

    def set_mesh_text(self, text: str) -> None:
        self.apply({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": text},
        })  # fmt: skip

    def mesh_text(self) -> str:
        return json.loads(self.kubectl("get", "configmap", "istio", "-n", "istio-system", "-o", "json"))["data"]["mesh"]

    def in_hub(self, *command: str, check: bool = True, timeout: float = 60) -> str:
        return run(inside(HUB, list(command)), check=check, timeout=timeout).stdout

    def kubectl(self, *arguments: str, check: bool = True, **options: Any) -> str:
        command = [str(self.tools / "kube/kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return run(inside(HUB, command), check=check, **options).stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-f", "-", input=text)

    def apply_files(self, *files: Path, server_side: bool = False) -> None:
        for file in files:
            self.kubectl("apply", *(["--server-side"] if server_side else []), "-f", str(file))

    def delete(self, *objects: dict[str, Any]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("delete", "--ignore-not-found", "-f", "-", input=text)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()
