"""An egress gateway in the path: a workload's request to it counts as one to the outside."""

from __future__ import annotations

from typing import Any

from lab.clients import Workload
from lab.mesh import Mesh
from lab.pod import Pod
from lab.plugins import MESH_WIDE, Plugins
from lab.processes import wait

from test_reach import service_entry

GATEWAY = "istio-egressgateway.istio-system.svc.cluster.local"
ADDRESS = "10.77.0.30"


def objects() -> list[dict[str, Any]]:
    """`gateway.example` leads through the egress gateway, as in Istio's own example."""
    metadata = {"namespace": "istio-system"}
    port = {"name": "http", "port": 80, "protocol": "TCP"}
    return [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "istio-egressgateway", **metadata},
            "spec": {"clusterIP": "10.96.0.30", "ports": [port]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "istio-egressgateway", **metadata, "labels": {"kubernetes.io/service-name": "istio-egressgateway"}},
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
            "ports": [port],
        },
        service_entry("gateway-example", "gateway.example", (80, "HTTP")),
        {
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "egress", **metadata},
            "spec": {
                "selector": {"istio": "egressgateway"},
                "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["gateway.example"]}],
            },
        },
        {
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "gateway-example", **metadata},
            "spec": {
                "hosts": ["gateway.example"], "gateways": ["mesh", "istio-system/egress"],
                "http": [
                    {"match": [{"gateways": ["mesh"]}], "route": [{"destination": {"host": GATEWAY, "port": {"number": 80}}}]},
                    {"match": [{"gateways": ["istio-system/egress"]}], "route": [{"destination": {"host": "gateway.example"}}]},
                ],
            },
        },
    ]  # fmt: skip


def test_what_goes_by_an_egress_gateway_must_be_listed(mesh: Mesh, plugins: Plugins, client: Workload) -> None:
    gateway = Pod("gateway", "istio-system", ADDRESS, "istio-egressgateway", {"istio": "egressgateway"}, role="router")
    mesh.control_plane.apply(*objects())
    try:
        mesh.start_pod(gateway)
        gateway.wait_ready()
        wait("the way through the gateway", lambda: through_gateway(client))
        leads_outside = {"mesh": {"egressGateways": [GATEWAY]}}
        with plugins.installed(MESH_WIDE, leads_outside, on=[client]):
            seen = client.http("gateway.example")
            assert (seen.status, client.verdict(seen)) == (403, "denied not_listed")
            assert client.http("reviews", 9080).passed
        with plugins.installed(MESH_WIDE, {**leads_outside, "registry": [{"hosts": ["gateway.example"]}]}, on=[client]):
            assert through_gateway(client)
        # Not named as a gateway, it is a service of the mesh like any other to the sidecar. But a mesh-wide plugin is on the
        # gateway, too, and to that the host is outside.
        with plugins.installed(MESH_WIDE, {}, on=[client]):
            seen = client.http("gateway.example")
            assert (seen.status, client.verdict(seen)) == (403, "-")
            assert client.logged(seen)["response_code_details"] == "via_upstream"
    finally:
        mesh.control_plane.delete(*objects())
        mesh.remove_pod(gateway)


def through_gateway(client: Workload) -> bool:
    """Whether a request passes, and by the gateway: nobody else listens at the cluster's only endpoint."""
    seen = client.http("gateway.example")
    return seen.passed and f"||{GATEWAY}" in client.logged(seen)["upstream_cluster"]
