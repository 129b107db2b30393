"""`egressctl render`: the filter, with what is rendered, decides as the ServiceEntries and Sidecars promise."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lab.clients import OPAQUE, Seen, Workload
from lab.egressctl import Egressctl
from lab.mesh import SERVER, Mesh
from lab.network import DATABASE, NEWS, OTHER_DATABASE, PARTNER
from lab.plugins import MESH_WIDE, Plugins
from lab.processes import wait


def service_entry(name: str, namespace: str, host: str, *ports: tuple[int, str], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "hosts": [host], "resolution": "DNS",
            "ports": [{"number": number, "name": f"{protocol.lower()}-{number}", "protocol": protocol} for number, protocol in ports],
            **spec,
        },
    }  # fmt: skip


OBJECTS = [
    service_entry("partner", "shop", "api.partner.example", (80, "HTTP"), (443, "TLS"), exportTo=["."]),
    service_entry("saas", "shop", "*.saas.example", (443, "TLS"), resolution="NONE"),
    service_entry("bank", "bank", "bank.example", (80, "HTTP"), exportTo=["."]),
    service_entry(
        "database", "bank", "db.partner.example", (3306, "TCP"), exportTo=["shop"], resolution="STATIC",
        addresses=[DATABASE], endpoints=[{"address": DATABASE}],
    ),
    service_entry(
        "legacy", "shop", "legacy.corp.example", (80, "HTTP"), location="MESH_INTERNAL", resolution="STATIC",
        endpoints=[{"address": SERVER, "ports": {"http-80": 9080}}],
    ),
    {
        "apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "default", "namespace": "bank"},
        "spec": {"egress": [{"hosts": ["./*", "istio-system/*"]}]},
    },
]  # fmt: skip

# What is asked, and who gets it. It is the same where Istio alone decides, under REGISTRY_ONLY.
PROMISES = {
    "HTTP to a host of its own namespace": (lambda w: w.http("api.partner.example"), ["shop"]),
    "TLS to it": (lambda w: w.tls("api.partner.example"), ["shop"]),
    "a port that is not registered": (lambda w: w.tls("api.partner.example", 8443), []),
    "a wildcard that is exported to all, but not imported by one": (lambda w: w.tls("eu.saas.example", 443, PARTNER), ["shop"]),
    "the other namespace's": (lambda w: w.http("bank.example"), ["bank"]),
    "a database by address": (lambda w: w.tcp(DATABASE, 3306), ["shop"]),
    "another database": (lambda w: w.tcp(OTHER_DATABASE, 3306), []),
    "bytes to nobody's address": (lambda w: w.tcp(NEWS, 9000, OPAQUE), []),
    "inside the mesh by a ServiceEntry": (lambda w: w.http("legacy.corp.example", 80, SERVER), ["shop"]),
    "not registered at all": (lambda w: w.http("news.example"), []),
}


@pytest.fixture(autouse=True)
def registered(mesh: Mesh, client: Workload, bank: Workload) -> Any:
    mesh.control_plane.apply(*OBJECTS)
    client.wait_for_cluster("outbound|80||legacy.corp.example")
    bank.wait_for_cluster("outbound|80||bank.example")
    yield
    mesh.control_plane.delete(*OBJECTS)


def render(mesh: Mesh, *options: str) -> str:
    """As the first lines of docs/egressctl/render.md have it."""
    objects = mesh.control_plane.kubectl("get", "serviceentries,sidecars,namespaces", "-A", "-o", "yaml")
    said = Egressctl(mesh.control_plane, "render")("-f", "-", *options, input=objects)
    assert said.status == 0, said
    return said.out


def check(workloads: dict[str, Workload]) -> None:
    found, promised = {}, {}
    for name, (ask, passes_for) in PROMISES.items():
        for namespace, workload in workloads.items():
            found[name, namespace] = passed(ask(workload))
            promised[name, namespace] = namespace in passes_for
    assert found == promised


def passed(seen: Seen) -> bool:
    return seen.status == 200


def test_a_mesh_wide_configuration_keeps_the_promises_of_all_namespaces(
    mesh: Mesh, plugins: Plugins, client: Workload, bank: Workload
) -> None:
    config = yaml.safe_load(render(mesh, "-A"))
    # Pods that workloads reach by their address are none of the ServiceEntries' business here.
    with plugins.installed(MESH_WIDE, config, on=[client, bank]):
        check({"shop": client, "bank": bank})


def test_wasm_plugins_for_one_namespace_need_nothing_but_kubectl_apply(mesh: Mesh, plugins: Plugins, client: Workload) -> None:
    version = ["--istio-version", mesh.istio_version]
    manifests = render(mesh, "-n", "shop", "--format", "wasmplugin", "--url", plugins.image, *version)
    mesh.control_plane.kubectl("apply", "-f", "-", input=manifests)
    try:
        wait("HTTP to be denied", lambda: client.http("news.example").status == 403)
        wait("TCP to be denied", lambda: not client.tcp(NEWS, 9000, OPAQUE).passed)
        check({"shop": client})
    finally:
        mesh.control_plane.kubectl("delete", "-f", "-", input=manifests)
        plugins.wait_gone(client)
