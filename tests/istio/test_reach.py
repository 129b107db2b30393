"""Who reaches what: the table of docs/istio.md, in each of the mesh's modes, with and without the plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lab.clients import OPAQUE, Seen, Workload
from lab.mesh import Mesh
from lab.network import DATABASE, NEWS, OTHER_DATABASE
from lab.plugins import MESH_WIDE, Plugins

# What the registry of the test has. The address of `other.example` is that of `news.example`.
CONFIG = {
    "registry": [
        {"hosts": ["api.partner.example", "registered.example"]},
        {"addresses": [DATABASE], "ports": [{"number": 5432, "protocol": "TCP"}, {"number": 9000, "protocol": "TCP"}]},
    ],
}


def service_entry(name: str, host: str, *ports: tuple[int, str], address: str | None = None) -> dict:
    spec = {
        "hosts": [host], "location": "MESH_EXTERNAL", "resolution": "STATIC" if address else "DNS",
        "ports": [{"number": number, "name": f"{protocol.lower()}-{number}", "protocol": protocol} for number, protocol in ports],
    }  # fmt: skip
    if address:
        spec |= {"addresses": [address], "endpoints": [{"address": address}]}
    return {
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": "istio-system"}, "spec": spec,
    }  # fmt: skip


# Known to Istio, whatever our registry says.
SERVICE_ENTRIES = [
    service_entry("registered", "registered.example", (80, "HTTP"), (443, "TLS")),
    service_entry("bank", "bank.example", (80, "HTTP"), (443, "TLS")),
    service_entry("other-database", "db.other.example", (3306, "TCP"), address=OTHER_DATABASE),
]

# What the client sees, then what the access log says: verdict and reason, or `-`.
PASSES, BLOCKED = "passes -", "closed -"
NO_WAY = "closed denied mesh_denied"
NOT_LISTED, SERVER_FIRST, SILENT = "closed denied not_listed", "closed denied server_first", "closed denied no_client_data"
REFUSED = "403 denied not_listed"
ISTIO_502 = "502 -"

# Each: what is asked, then what comes of it
#   without plugins under REGISTRY_ONLY; under ALLOW_ANY everything passes
#   with plugins under ALLOW_ANY and REGISTRY_ONLY
#   the same with the component no-syn
ROWS: dict[str, tuple[Callable[[Workload], Seen], str, str, str, str, str]] = {
    "HTTP, listed, with a ServiceEntry": (
        lambda w: w.http("registered.example"), PASSES, PASSES, PASSES, PASSES, PASSES,
    ),
    "HTTP, listed, without": (
        lambda w: w.http("api.partner.example"), ISTIO_502, PASSES, ISTIO_502, PASSES, ISTIO_502,
    ),
    "HTTP, not listed, with a ServiceEntry": (
        lambda w: w.http("bank.example"), PASSES, REFUSED, REFUSED, REFUSED, REFUSED,
    ),
    "HTTP, not listed, without": (
        lambda w: w.http("news.example"), ISTIO_502, REFUSED, REFUSED, REFUSED, REFUSED,
    ),
    "HTTP on port 8080, listed, without": (
        lambda w: w.http("api.partner.example", 8080), BLOCKED, PASSES, NO_WAY, PASSES, BLOCKED,
    ),
    "HTTP on port 8080, not listed, without": (
        lambda w: w.http("news.example", 8080), BLOCKED, NOT_LISTED, NO_WAY, NOT_LISTED, NOT_LISTED,
    ),
    "TLS, listed, with a ServiceEntry": (
        lambda w: w.tls("registered.example"), PASSES, PASSES, PASSES, PASSES, PASSES,
    ),
    "TLS, listed, without": (
        lambda w: w.tls("api.partner.example"), BLOCKED, PASSES, BLOCKED, PASSES, BLOCKED,
    ),
    "TLS, not listed, with a ServiceEntry": (
        lambda w: w.tls("bank.example"), PASSES, NOT_LISTED, NOT_LISTED, NOT_LISTED, NOT_LISTED,
    ),
    "TLS, not listed, without": (
        lambda w: w.tls("news.example"), BLOCKED, NOT_LISTED, NOT_LISTED, NOT_LISTED, NOT_LISTED,
    ),
    "TLS on port 8443, listed, without": (
        lambda w: w.tls("api.partner.example", 8443), BLOCKED, PASSES, NO_WAY, PASSES, BLOCKED,
    ),
    "TLS on port 8443, not listed, without": (
        lambda w: w.tls("news.example", 8443), BLOCKED, NOT_LISTED, NO_WAY, NOT_LISTED, NOT_LISTED,
    ),
    "bytes, listed by address, without": (
        lambda w: w.tcp(DATABASE, 9000, OPAQUE), BLOCKED, PASSES, BLOCKED, PASSES, BLOCKED,
    ),
    "bytes, not listed, without": (
        lambda w: w.tcp(NEWS, 9000, OPAQUE), BLOCKED, NOT_LISTED, NO_WAY, NOT_LISTED, NOT_LISTED,
    ),
    # With no-syn nobody speaks: a listed one never connects.
    "server first, listed by address, without": (
        lambda w: w.tcp(DATABASE, 5432), BLOCKED, PASSES, BLOCKED, BLOCKED, BLOCKED,
    ),
    "server first, not listed, without": (
        lambda w: w.tcp(OTHER_DATABASE, 5432), BLOCKED, SERVER_FIRST, NO_WAY, SILENT, SILENT,
    ),
    "server first, not listed, with a ServiceEntry": (
        lambda w: w.tcp(OTHER_DATABASE, 3306), PASSES, SERVER_FIRST, SERVER_FIRST, SERVER_FIRST, SERVER_FIRST,
    ),
}  # fmt: skip


@pytest.fixture(params=["ALLOW_ANY", "REGISTRY_ONLY"])
def mode(request: pytest.FixtureRequest, mesh: Mesh, client: Workload) -> Iterator[str]:
    """Istio's own policy, in force at the client."""
    mesh.control_plane.apply(*SERVICE_ENTRIES)
    mesh.set_mode(request.param, client)
    yield request.param
    mesh.control_plane.delete(*SERVICE_ENTRIES)
    mesh.set_mode("ALLOW_ANY", client)


def check(mesh: Mesh, client: Workload, column: int) -> None:
    # First all of them, since Envoy writes its access log once a second.
    asked = {name: row[0](client) for name, row in ROWS.items()}
    found = {name: f"{outcome(seen)} {client.verdict(seen)}" for name, seen in asked.items()}
    assert found == {name: row[column] for name, row in ROWS.items()}


def outcome(seen: Seen) -> str:
    return {200: "passes", 0: "closed"}.get(seen.status, str(seen.status))


def test_without_plugins(mesh: Mesh, client: Workload, mode: str) -> None:
    if mode == "REGISTRY_ONLY":
        check(mesh, client, 1)
    else:
        for name, row in ROWS.items():
            assert row[0](client).passed, name


def test_with_plugins(mesh: Mesh, plugins: Plugins, client: Workload, mode: str) -> None:
    with plugins.installed(MESH_WIDE, CONFIG, on=[client]):
        check(mesh, client, 2 if mode == "ALLOW_ANY" else 3)


def test_with_plugins_and_no_syn(mesh: Mesh, plugins: Plugins, client: Workload, mode: str) -> None:
    # Istio before 1.29 does not know the field, and leaves it out: all is as without the component.
    columns = (4, 5) if mesh.has_lazy_connect else (2, 3)
    with plugins.installed(MESH_WIDE, CONFIG, "no-syn", on=[client]):
        check(mesh, client, columns[0] if mode == "ALLOW_ANY" else columns[1])
        # What no listener knows sees no connection, not even a handshake.
        before = len(mesh.reached_outside())
        for ask in (lambda: client.tls("news.example", 8443), lambda: client.http("news.example", 8080)):
            assert not ask().passed
        if mesh.has_lazy_connect:
            assert mesh.reached_outside()[before:] == []
