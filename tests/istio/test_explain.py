"""`egressctl explain` of a running pod says what the pod's sidecar does."""

from __future__ import annotations

import json
from typing import Any

from lab.clients import OPAQUE, Workload
from lab.egressctl import Egressctl
from lab.mesh import Mesh
from lab.network import DATABASE, NEWS, OTHER_DATABASE
from lab.plugins import MESH_WIDE, Plugins

CONFIG = {
    "registry": [
        {"hosts": ["api.partner.example"], "ports": [{"number": 80, "protocol": "HTTP"}]},
        {"addresses": [DATABASE], "ports": [{"number": 9000, "protocol": "TCP"}]},
    ],
    "overrides": [{"match": {"labels": {"app": "crawler"}}, "registry": [{"hosts": ["news.example"]}]}],
}

ASKED = {
    "http://api.partner.example/": lambda w: w.http("api.partner.example"),
    "https://api.partner.example/": lambda w: w.tls("api.partner.example"),
    "http://news.example/": lambda w: w.http("news.example"),
    "https://news.example/": lambda w: w.tls("news.example"),
    f"tcp://{DATABASE}:9000": lambda w: w.tcp(DATABASE, 9000, OPAQUE),
    f"tcp://{OTHER_DATABASE}:9000": lambda w: w.tcp(OTHER_DATABASE, 9000, OPAQUE),
    f"tcp://{NEWS}:9000": lambda w: w.tcp(NEWS, 9000, OPAQUE),
    # By the Service's name, and by that within its own namespace.
    "http://web.shop.svc.cluster.local/": lambda w: w.http("web.shop.svc.cluster.local", 80, "10.96.0.12"),
    "http://web/": lambda w: w.http("web", 80, "10.96.0.12"),
}


def pod_object(name: str, workload: str, labels: dict[str, str], namespace: str = "shop") -> dict[str, Any]:
    """A pod as the API server has it, with what the injector writes into its sidecar. No kubelet runs it here: the lab
    runs its processes."""
    variables = [{"name": "ISTIO_META_WORKLOAD_NAME", "value": workload}]
    containers = [{"name": "app", "image": "app"}, {"name": "istio-proxy", "image": "proxy", "env": variables}]
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": containers, "automountServiceAccountToken": False},
    }  # fmt: skip


def test_says_of_a_pod_what_its_sidecar_does(mesh: Mesh, plugins: Plugins, client: Workload, crawler: Workload) -> None:
    explain = Egressctl(mesh.control_plane, "explain")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "shop"}}
    workloads = [client, crawler]
    # Not beside the lab's endpoints: these pods have no address.
    pods = [pod_object(f"{one.pod.name}-pod", one.pod.workload, one.pod.labels) for one in workloads]
    mesh.control_plane.apply(account, *pods)
    try:
        with plugins.installed(MESH_WIDE, CONFIG, on=workloads):
            for workload in workloads:
                said = explain("-n", "shop", f"{workload.pod.name}-pod", "-o", "json", *ASKED)
                answers = {answer["url"]: f"{answer['verdict']} {answer['reason']}" for answer in json.loads(said.out)}
                asked = {url: ask(workload) for url, ask in ASKED.items()}
                found = {url: (seen.passed, workload.verdict(seen)) for url, seen in asked.items()}
                for url, (passed, verdict) in found.items():
                    quiet = answers[url] in ("allowed listed", "allowed mesh_internal")
                    assert verdict == ("-" if quiet else answers[url]), (workload.pod.name, url, answers[url])
                    assert passed == answers[url].startswith("allowed"), (workload.pod.name, url)
                assert said.status == 1
            # The override is for one of them.
            for workload, status in ((client, 1), (crawler, 0)):
                assert explain("-n", "shop", f"{workload.pod.name}-pod", "https://news.example").status == status
            gone = explain("-n", "shop", "gone", "https://news.example")
            assert gone.status == 2 and "there is no Pod shop/gone" in gone.err, gone
    finally:
        mesh.control_plane.delete(*pods)
