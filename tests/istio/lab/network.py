"""Network namespaces: a hub with the control plane and the outside world, and one for each pod, joined by a bridge.

Nothing leaves this machine: no namespace has a way to anything but the others.
"""

from __future__ import annotations

from pathlib import Path

from .processes import run

# All names on the machine begin with this, so that leftovers of a run that was killed can be found and removed.
PREFIX = "egress-"
HUB = f"{PREFIX}hub"
BRIDGE = "bridge"

CONTROL_PLANE = "10.77.0.1"
POD_RANGE = "10.77.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"

# Documentation addresses (RFC 5737) and the cloud metadata address: each is the hub's own.
PARTNER, NEWS, DATABASE, OTHER_DATABASE = "203.0.113.10", "203.0.113.20", "203.0.113.30", "203.0.113.31"
METADATA = "169.254.169.254"
# Where nobody listens (RFC 2544): connections are refused at once.
NOBODY = "198.18.0.0/15"
OUTSIDE = [PARTNER, NEWS, DATABASE, OTHER_DATABASE, METADATA]

# The agent and its Envoy run as this user, whose traffic is not redirected.
PROXY_UID = 1337


def ip(*arguments: str, check: bool = True) -> str:
    return run(["ip", *arguments], check=check).stdout


def inside(namespace: str, command: list[str]) -> list[str]:
    """The command that runs another in a namespace."""
    return ["ip", "netns", "exec", namespace, *command]


def remove_all() -> None:
    """Removes the namespaces of this run, and what an earlier one may have left."""
    for line in ip("netns", "list").splitlines():
        name = line.split()[0]
        if name.startswith(PREFIX):
            remove(name)


def remove(namespace: str) -> None:
    ip("netns", "del", namespace, check=False)
    folder = Path("/etc/netns", namespace)
    for file in folder.glob("*"):
        file.unlink()
    if folder.is_dir():
        folder.rmdir()


def make_hub(hosts: dict[str, str]) -> None:
    make_namespace(HUB, hosts)
    ip("-n", HUB, "link", "add", BRIDGE, "type", "bridge")
    ip("-n", HUB, "addr", "add", f"{CONTROL_PLANE}/16", "dev", BRIDGE)
    for address in OUTSIDE:
        ip("-n", HUB, "addr", "add", f"{address}/32", "dev", BRIDGE)
    ip("-n", HUB, "link", "set", BRIDGE, "up")
    ip("-n", HUB, "route", "add", "local", NOBODY, "dev", "lo")


def make_namespace(name: str, hosts: dict[str, str]) -> None:
    """A namespace whose programs resolve these names, and no others."""
    ip("netns", "add", name)
    ip("-n", name, "link", "set", "lo", "up")
    folder = Path("/etc/netns", name)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["127.0.0.1 localhost", *(f"{address} {host}" for host, address in hosts.items())]
    (folder / "hosts").write_text("\n".join(lines) + "\n")
    # No DNS server: what is not in hosts is not resolved, at once.
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions attempts:1 timeout:1\n")


def make_pod(name: str, address: str, hosts: dict[str, str], is_redirected: bool) -> str:
    """A pod's namespace, its outbound TCP redirected into a sidecar as Istio's init container does it."""
    namespace = f"{PREFIX}{name}"
    make_namespace(namespace, hosts)
    peer = f"v-{name}"[:15]
    ip("-n", HUB, "link", "add", peer, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    ip("-n", HUB, "link", "set", peer, "master", BRIDGE, "up")
    ip("-n", namespace, "addr", "add", f"{address}/16", "dev", "eth0")
    ip("-n", namespace, "link", "set", "eth0", "up")
    ip("-n", namespace, "route", "add", "default", "via", CONTROL_PLANE)
    # As in Istio's own pods: a gateway's ports are below 1024.
    run(inside(namespace, ["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start"]))
    if is_redirected:
        for rule in (
            ["-d", f"{CONTROL_PLANE}/32", "-j", "RETURN"],
            ["-d", "127.0.0.1/32", "-j", "RETURN"],
            ["-m", "owner", "--uid-owner", str(PROXY_UID), "-j", "RETURN"],
            ["-j", "REDIRECT", "--to-ports", "15001"],
        ):
            run(inside(namespace, ["iptables", "-w", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", *rule]))
    return namespace
