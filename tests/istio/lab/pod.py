"""A workload with its sidecar: a network namespace, whose outbound TCP goes through a real pilot-agent and Envoy."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .control_plane import MESH_CONFIG, ControlPlane
from .network import CONTROL_PLANE, PROXY_UID, inside, make_pod
from .processes import Process, run, wait


@dataclass
class Pod:
    name: str
    namespace: str
    address: str
    workload: str
    labels: dict[str, str] = field(default_factory=dict)
    # `sidecar`, or `router` for a gateway.
    role: str = "sidecar"
    # How many workers its Envoy has.
    concurrency: int = 1

    def start(self, control_plane: ControlPlane, folder: Path, hosts: dict[str, str], env: dict[str, str]) -> None:
        """Makes the namespace and starts the sidecar, which may not get ready yet."""
        self.control_plane, self.folder = control_plane, folder / self.name
        self.folder.mkdir()
        os.chown(self.folder, PROXY_UID, PROXY_UID)
        self.netns = make_pod(self.name, self.address, hosts, is_redirected=self.role == "sidecar")
        proxy_config = {
            "discoveryAddress": f"{CONTROL_PLANE}:15010",
            "controlPlaneAuthPolicy": "NONE",
            "binaryPath": str(folder / "bin/envoy"),
            "configPath": str(self.folder / "etc"),
            "concurrency": self.concurrency,
            **self._bootstrap_part(),
        }
        environment = {
            "HOME": str(self.folder), "POD_NAME": self.name, "POD_NAMESPACE": self.namespace,
            "INSTANCE_IP": self.address, "SERVICE_ACCOUNT": "default", "CA_ADDR": f"{CONTROL_PLANE}:15010",
            "PILOT_CERT_PROVIDER": "none", "ISTIO_META_CLUSTER_ID": "Kubernetes", "ISTIO_META_MESH_ID": "cluster.local",
            "ISTIO_META_WORKLOAD_NAME": self.workload, "ISTIO_METAJSON_LABELS": json.dumps(self.labels),
            "PROXY_CONFIG": json.dumps(proxy_config), **env,
        }  # fmt: skip
        agent = [
            str(folder / "bin/pilot-agent"), "proxy", self.role, "--domain", f"{self.namespace}.svc.cluster.local",
            "--proxyLogLevel=warning", "--proxyComponentLogLevel=wasm:info,misc:error",
            f"--templateFile={folder / 'bin/envoy_bootstrap.json'}",
        ]  # fmt: skip
        # The agent keeps modules in /var/lib/istio/data; each pod has its own. This namespace's mounts are its own, too.
        prepare = f"mount -t tmpfs tmpfs /var/lib && install -d -o {PROXY_UID} -g {PROXY_UID} /var/lib/istio/data"
        as_proxy = ["setpriv", f"--reuid={PROXY_UID}", f"--regid={PROXY_UID}", "--clear-groups"]
        shell = ["sh", "-c", f'{prepare} && cd {self.folder} && exec "$@"', "sh", *as_proxy, *agent]
        self.sidecar = Process("sidecar", inside(self.netns, shell), self.folder, environment, PROXY_UID)

    def _bootstrap_part(self) -> dict[str, Any]:
        return yaml.safe_load(MESH_CONFIG.read_text())["defaultConfig"]

    def is_ready(self) -> bool:
        """What a pod's readiness probe asks."""
        if not self.sidecar.is_alive():
            raise AssertionError(f"the sidecar of {self.name} has ended\n{self.sidecar.tail()}")
        return self.run("curl", "-sf", "-m", "5", "-o", "/dev/null", "127.0.0.1:15020/healthz/ready").returncode == 0

    def wait_ready(self) -> None:
        wait(f"{self.name} to be ready", self.is_ready)

    def run(self, *command: str, timeout: float = 60, **options: Any) -> Any:
        """Runs a command as the workload; its status is in what is returned."""
        return run(inside(self.netns, list(command)), timeout=timeout, check=False, **options)

    def admin(self, path: str) -> str:
        return self.run("curl", "-s", "-m", "10", f"127.0.0.1:15000/{path}").stdout

    def log(self) -> str:
        """What agent and Envoy have logged."""
        return self.sidecar.err.read_text(errors="replace") + self.sidecar.out.read_text(errors="replace")

    def access_log(self) -> list[dict[str, Any]]:
        lines = self.sidecar.out.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and "egress_verdict" in line]

    def metrics(self, prefix: str = "egress_") -> dict[str, float]:
        """What Prometheus would scrape, from the merged endpoint."""
        page = self.run("curl", "-s", "-m", "10", "127.0.0.1:15020/stats/prometheus").stdout
        lines = (line.rsplit(" ", 1) for line in page.splitlines() if line.startswith(prefix))
        return {series: float(value) for series, value in lines}

    def stop(self) -> None:
        self.sidecar.stop()
