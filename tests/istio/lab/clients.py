"""What a workload does: requests and connections from within its pod."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .mesh import HOSTS, Mesh
from .pod import Pod
from .processes import wait

TCP_CLIENT = Path(__file__).with_name("tcp_client.py")
# PostgreSQL's SSLRequest: bytes of a protocol without a name in it.
OPAQUE = "0000000804d2162f"


@dataclass(frozen=True)
class Seen:
    """What a client saw."""

    # HTTP status; 0 where there was no answer.
    status: int
    text: str
    # The client's address, by which the access log tells it: each makes one connection, and on it one request.
    client: str

    @property
    def passed(self) -> bool:
        return self.status == 200


# Below those that the kernel chooses, and none twice: a port that was redirected lately would be rewritten on its way, and
# the access log would tell another.
PORTS = itertools.count(20_000)


class Workload:
    """A pod's client, which knows the authority of the outside world."""

    def __init__(self, mesh: Mesh, pod: Pod) -> None:
        self.mesh, self.pod = mesh, pod

    def http(self, host: str, port: int = 80, address: str | None = None, *options: str) -> Seen:
        return self._curl("http", host, port, address, *options)

    def tls(self, host: str, port: int = 443, address: str | None = None, *options: str) -> Seen:
        return self._curl("https", host, port, address, "--cacert", str(self.mesh.authority), *options)

    def _curl(self, scheme: str, host: str, port: int, address: str | None, *options: str) -> Seen:
        to = ["--connect-to", f"::{address or HOSTS.get(host, host)}:{port}"]
        # The status and the client's address on a last line of their own.
        form = "\n%{http_code} %{local_ip}:%{local_port}"
        done = self.pod.run("curl", "-sS", "-m", "20", "--local-port", str(next(PORTS)), "-w", form, *to, *options, f"{scheme}://{host}:{port}/")
        text, _, last = done.stdout.rpartition("\n")
        status, _, client = last.partition(" ")
        return Seen(int(status or 0), text + done.stderr, client)

    def tcp(self, address: str, port: int, first: str = "") -> Seen:
        done = self.pod.run("python3", str(TCP_CLIENT), str(next(PORTS)), address, str(port), first)
        answer = json.loads(done.stdout)
        return Seen(200 if answer["heard"] else 0, answer["heard"] or str(answer["error"]), answer["client"])

    def logged(self, seen: Seen) -> dict[str, Any]:
        """The access log's line about it."""

        def find() -> dict[str, Any] | None:
            for line in self.pod.access_log():
                if line["downstream_remote_address"] == seen.client:
                    return line
            return None

        return wait(f"{seen} in the access log of {self.pod.name}", find)

    def wait_for_cluster(self, name: str) -> None:
        """Until the sidecar knows a service."""
        wait(f"{self.pod.name} to have {name}", lambda: f"{name}::" in self.pod.admin("clusters"))

    def verdict(self, seen: Seen) -> str:
        """Verdict and reason in the access log; `-` where the filter leaves none: listed and mesh_internal."""
        line = self.logged(seen)
        return f"{line['egress_verdict']} {line['egress_reason']}" if line["egress_verdict"] else "-"
