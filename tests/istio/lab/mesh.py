"""A whole mesh on one machine without containers: control plane, outside world, registry and pods."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import trustme

from . import network
from .control_plane import REPOSITORY, ControlPlane
from .network import CONTROL_PLANE, DATABASE, HUB, NEWS, OTHER_DATABASE, PARTNER, inside
from .pod import Pod
from .processes import Process, run, wait

REGISTRY = f"{CONTROL_PLANE}:5000"

# Names that pods resolve. Services have the addresses of their ClusterIPs.
HOSTS = {
    "api.partner.example": PARTNER, "files.partner.example": PARTNER, "eu.saas.example": PARTNER,
    "news.example": NEWS, "other.example": NEWS, "crawled.example": NEWS, "bank.example": NEWS, "new.example": NEWS,
    "registered.example": PARTNER, "registered-tcp.example": DATABASE, "gateway.example": PARTNER,
    "db.partner.example": DATABASE, "db.other.example": OTHER_DATABASE,
    "reviews.shop.svc.cluster.local": "10.96.0.10", "reviews": "10.96.0.10",
    "mysql.shop.svc.cluster.local": "10.96.0.11",
    "headless.shop.svc.cluster.local": "10.77.0.20",
}  # fmt: skip

CLIENT = Pod("client", "shop", "10.77.0.2", "client", {"app": "client"})
CRAWLER = Pod("crawler", "shop", "10.77.0.3", "crawler", {"app": "crawler"})
BANK = Pod("bank", "bank", "10.77.0.4", "client", {"app": "client"})
SERVER = "10.77.0.20"


class Mesh:
    """Everything that runs; each test brings its own plugins and takes them away again."""

    def __init__(self, folder: Path, tools: Path, version: str, envoy: Path) -> None:
        self.folder, self.tools, self.version = folder, tools, version
        self.processes: list[Process] = []
        self.pods: list[Pod] = []
        self.control_plane = ControlPlane(folder, tools, version)
        (folder / "bin").mkdir()
        # The proxy's user must be able to read them, wherever the project lies.
        for source, name in ((envoy, "envoy"), (self.control_plane.istio / "pilot-agent", "pilot-agent")):
            shutil.copy(source, folder / "bin" / name)
            os.chmod(folder / "bin" / name, 0o755)
        shutil.copy(self.control_plane.istio / "envoy_bootstrap.json", folder / "bin")

    def start(self) -> None:
        network.remove_all()
        network.make_hub(HOSTS)
        self._start_outside()
        self._start_registry()
        self.control_plane.start()
        self._make_objects()
        self._start_server()
        for pod in (CLIENT, CRAWLER, BANK):
            self.start_pod(pod)
        for pod in self.pods:
            pod.wait_ready()

    def start_pod(self, pod: Pod, **env: str) -> None:
        environment = {"WASM_INSECURE_REGISTRIES": REGISTRY, "ISTIO_META_ISTIO_VERSION": self.istio_version, **env}
        self.pods.append(pod)
        pod.start(self.control_plane, self.folder, HOSTS, environment)

    def remove_pod(self, pod: Pod) -> None:
        self.pods.remove(pod)
        pod.stop()
        network.remove(pod.netns)

    @property
    def istio_version(self) -> str:
        return "1.31.0" if self.version == "main" else self.version

    @property
    def has_lazy_connect(self) -> bool:
        """Whether tcp_proxy has ON_DOWNSTREAM_DATA: with Envoy 1.37, so from Istio 1.29 on."""
        return not self.istio_version.startswith("1.28.")

    @property
    def has_traffic_extension(self) -> bool:
        """Whether istiod makes a TrafficExtension of a WasmPlugin: from 1.30 on."""
        return not self.istio_version.startswith(("1.28.", "1.29."))

    def _start_outside(self) -> None:
        authority = trustme.CA()
        # News answers to every name, or a spoofed one would fail for another reason.
        certificate = authority.issue_cert(*(name for name in HOSTS if name.endswith(".example")))
        self.authority = self.folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        chain, key = self.folder / "outside.pem", self.folder / "outside.key"
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(str(chain), append=True)
        certificate.private_key_pem.write_to_path(str(key))
        self.outside_log = self.folder / "outside.log"
        self.outside_log.touch()
        script = Path(__file__).with_name("outside.py")
        command = ["python3", str(script), str(chain), str(key), str(self.outside_log)]
        self._start("outside", HUB, command)
        wait("the outside world", lambda: "ready" in self.processes[-1].out.read_text())

    def _start_registry(self) -> None:
        config = self.folder / "registry.yaml"
        config.write_text(json.dumps({
            "version": "0.1", "storage": {"filesystem": {"rootdirectory": str(self.folder / "registry")}},
            "http": {"addr": REGISTRY},
        }))  # fmt: skip
        self._start("registry", HUB, ["docker-registry", "serve", str(config)])
        wait("the registry", lambda: self.control_plane.in_hub("curl", "-sf", f"{REGISTRY}/v2/", check=False))

    def _start_server(self) -> None:
        """A pod without a sidecar that serves what is inside the mesh."""
        namespace = network.make_pod("server", SERVER, HOSTS, is_redirected=False)
        script = Path(__file__).with_name("inside.py")
        self._start("server", namespace, ["python3", str(script)])
        wait("the server", lambda: "ready" in self.processes[-1].out.read_text())

    def _start(self, name: str, namespace: str, command: list[str]) -> None:
        self.processes.append(Process(name, inside(namespace, command), self.folder))

    def _make_objects(self) -> None:
        for namespace in ("shop", "bank"):
            self.control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        # For all tests: what the mesh does by itself is logged in the same way.
        telemetry = REPOSITORY / "istio/components/access-log/telemetry.yaml"
        self.control_plane.kubectl("apply", "-n", "istio-system", "-f", str(telemetry))
        self.control_plane.apply(
            {
                "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
                "metadata": {"name": "default", "namespace": "istio-system"}, "spec": {"mtls": {"mode": "DISABLE"}},
            },
            *service("reviews", "10.96.0.10", 9080, "http"),
            *service("mysql", "10.96.0.11", 3306, "tcp-mysql"),
            *service("headless", "None", 9090, "tcp"),
            # As in nearly every mesh, some service has HTTP on port 80: then sidecars parse whatever goes to that port.
            *service("web", "10.96.0.12", 80, "http", target=9080),
        )  # fmt: skip

    def push_image(self) -> str:
        """Pushes the module to the registry, as `make push` does; returns the reference to pin."""
        crane = self.tools / "crane/crane"
        image = REPOSITORY / "dist/egress-filter-image"
        reference = f"{REGISTRY}/egress-filter"
        self.control_plane.in_hub(str(crane), "push", "--insecure", str(image), f"{reference}:test")
        digest = self.control_plane.in_hub(str(crane), "digest", "--insecure", f"{reference}:test").strip()
        return f"oci://{reference}@{digest}"

    def set_mode(self, mode: str, *workloads: Any) -> None:
        """Sets outboundTrafficPolicy, and waits until these sidecars have it."""
        self.control_plane.set_mesh_config(mode)
        cluster = "BlackHoleCluster" if mode == "REGISTRY_ONLY" else "PassthroughCluster"
        for workload in workloads:

            def has_it(pod: Pod = workload.pod) -> bool:
                dump = pod.admin("config_dump?resource=dynamic_listeners&name_regex=virtualOutbound")
                chains = json.loads(dump)["configs"][0]["active_state"]["listener"]["filter_chains"]
                chain = next(one for one in chains if one.get("name") == "virtualOutbound-catchall-tcp")
                proxy = chain["filters"][-1]["typed_config"]
                return proxy["cluster"] == cluster

            wait(f"{workload.pod.name} to have {mode}", has_it)

    def reached_outside(self) -> list[dict[str, Any]]:
        """Every connection and request that the outside world has seen."""
        return [json.loads(line) for line in self.outside_log.read_text().splitlines()]

    def stop(self) -> None:
        for pod in self.pods:
            pod.stop()
        self.control_plane.stop()
        for process in reversed(self.processes):
            process.stop()
        network.remove_all()

    def logs(self) -> str:
        everything = [*self.control_plane.processes, *self.processes, *(pod.sidecar for pod in self.pods)]
        return "\n".join(process.tail() for process in everything)


def service(name: str, address: str, port: int, port_name: str, target: int | None = None) -> list[dict[str, Any]]:
    """A Service of the server's, with the slice of endpoints that no controller makes here."""
    metadata = {"name": name, "namespace": "shop"}
    return [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {
                "clusterIP": address,
                "ports": [{"name": port_name, "port": port, "targetPort": target or port, "protocol": "TCP"}],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": [SERVER], "conditions": {"ready": True}}],
            "ports": [{"name": port_name, "port": target or port, "protocol": "TCP"}],
        },
    ]  # fmt: skip
