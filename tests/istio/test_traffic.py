"""What stays untouched inside the mesh, what the deny list keeps in, and what a workload gains by lying."""

from __future__ import annotations

from lab.clients import OPAQUE, Workload
from lab.mesh import SERVER
from lab.network import METADATA, NEWS, POD_RANGE, SERVICE_RANGE
from lab.plugins import MESH_WIDE, Plugins

from test_reach import service_entry

INSIDE = {"mesh": {"addresses": [POD_RANGE, SERVICE_RANGE]}}


def test_what_is_inside_the_mesh_is_untouched(plugins: Plugins, client: Workload) -> None:
    with plugins.installed(MESH_WIDE, INSIDE, on=[client]):
        asked = {
            "HTTP by name": client.http("reviews", 9080),
            "HTTP by ClusterIP": client.http("10.96.0.10", 9080),
            "HTTP to a pod": client.http(SERVER, 9080),
            "a database behind a ClusterIP": client.tcp("10.96.0.11", 3306),
            "a headless service": client.tcp(SERVER, 9090, OPAQUE),
            "a pod on a port that no service has": client.tcp(SERVER, 3306),
        }
        for name, seen in asked.items():
            assert seen.passed, (name, seen)
            assert client.verdict(seen) == "-", name
        decided = client.pod.metrics("egress_")
        internal = [one for one in decided if 'egress_host="mesh"' in one and "_total" in one and "bytes" not in one]
        assert internal and all('egress_reason="mesh_internal"' in one for one in internal), internal
        assert not client.http("news.example").passed


def test_without_addresses_of_the_mesh_its_services_are_untouched(plugins: Plugins, client: Workload) -> None:
    """By their routes alone. What goes to a pod by its address is then outside."""
    with plugins.installed(MESH_WIDE, {}, on=[client]):
        asked = [client.http("reviews", 9080), client.tcp("10.96.0.11", 3306), client.tcp(SERVER, 9090, OPAQUE)]
        assert [seen.passed for seen in asked] == [True] * 3
        assert [client.verdict(seen) for seen in asked] == ["-"] * 3
        seen = client.tcp(SERVER, 3306)
        assert (seen.passed, client.verdict(seen)) == (False, "denied server_first")


def test_cloud_metadata_is_denied_whatever_else_is_allowed(plugins: Plugins, client: Workload) -> None:
    config = {"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}, "deny": [{"addresses": [METADATA]}]}
    assert client.http(METADATA).passed
    with plugins.installed(MESH_WIDE, config, on=[client]):
        http = client.http(METADATA)
        assert (http.status, client.verdict(http)) == (403, "denied deny_listed")
        # Whatever it is called, and on a port that Istio takes for TCP.
        for seen in (client.http("api.partner.example", 80, METADATA), client.http("x.example", 8080, METADATA)):
            assert (seen.passed, client.verdict(seen)) == (False, "denied deny_listed")
        assert client.http("news.example").passed
        assert client.verdict(client.http("news.example")) == "allowed allow_any"


def test_a_spoofed_name_passes_unless_it_is_verified(plugins: Plugins, client: Workload) -> None:
    lies = {
        "Host": lambda: client.http("api.partner.example", 80, NEWS),
        "Host on a TCP port": lambda: client.http("api.partner.example", 8080, NEWS),
        "SNI": lambda: client.tls("api.partner.example", 443, NEWS),
        "SNI on another port": lambda: client.tls("api.partner.example", 8443, NEWS),
    }
    truth = [lambda: client.http("api.partner.example"), lambda: client.tls("api.partner.example", 8443)]
    registry = [{"hosts": ["api.partner.example"], "addresses": ["203.0.113.10"]}]
    with plugins.installed(MESH_WIDE, {"registry": registry}, on=[client]):
        assert {name: lie().passed for name, lie in lies.items()} == dict.fromkeys(lies, True)
    with plugins.installed(MESH_WIDE, {"registry": registry, "spoofProtection": True}, on=[client]):
        seen = {name: lie() for name, lie in lies.items()}
        assert {name: one.passed for name, one in seen.items()} == dict.fromkeys(lies, False)
        for name, one in seen.items():
            assert client.verdict(one) == "denied unverified_destination", name
        assert all(ask().passed for ask in truth)


def test_what_istio_resolves_by_itself_cannot_be_spoofed(mesh, plugins: Plugins, client: Workload) -> None:
    """With a ServiceEntry and resolution DNS, Envoy goes to the host's own address, whatever the workload chose."""
    entry = service_entry("registered", "registered.example", (80, "HTTP"), (443, "TLS"))
    mesh.control_plane.apply(entry)
    try:
        config = {"registry": [{"hosts": ["registered.example"]}]}
        with plugins.installed(MESH_WIDE, config, on=[client]):
            client.wait_for_cluster("outbound|80||registered.example")
            for seen in (client.http("registered.example", 80, NEWS), client.tls("registered.example", 443, NEWS)):
                assert seen.text.startswith("203.0.113.10:"), seen
    finally:
        mesh.control_plane.delete(entry)
