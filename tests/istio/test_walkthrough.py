"""docs/walkthrough.md: every command in it is run as it stands there, and prints what stands there.

`BLESS=1` writes anew what they print; what is to be left out (`...`) has to be cut again by hand.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.clients import Workload
from lab.control_plane import REPOSITORY
from lab.mesh import Mesh
from lab.network import DATABASE, HUB, METADATA, inside
from lab.plugins import Plugins
from lab.processes import run, wait
from test_explain import pod_object

DOCUMENT = REPOSITORY / "docs/walkthrough.md"
UPDATE = "BLESS" in os.environ

# `kubectl logs` asks a kubelet, and none runs here: what the pod has written is a file. All else goes to the API server.
KUBECTL = """\
#!/usr/bin/env bash
if [ "$1" = logs ]; then
  for word in "$@"; do
    if [ -f "{folder}/$word/sidecar.out" ]; then exec cat "{folder}/$word/sidecar.out"; fi
  done
  echo "no log of: $*" >&2; exit 1
fi
exec {kubectl} "$@"
"""


class Walk:
    def __init__(self, mesh: Mesh, plugins: Plugins, folder: Path, workloads: list[Workload]) -> None:
        self.mesh, self.plugins, self.folder, self.workloads = mesh, plugins, folder, workloads
        programs = folder / "programs"
        programs.mkdir()
        (folder / "istio").symlink_to(REPOSITORY / "istio")
        kubectl = programs / "kubectl"
        kubectl.write_text(KUBECTL.format(folder=mesh.folder, kubectl=mesh.tools / "kube/kubectl"))
        kubectl.chmod(0o755)
        (programs / "egressctl").symlink_to(REPOSITORY / "dist/egressctl")
        # The harness's own Python, which has a YAML library.
        (programs / "python3").symlink_to(sys.executable)
        self.environment = [
            "env", f"PATH={programs}:{os.environ['PATH']}", f"KUBECONFIG={mesh.control_plane.kubeconfig}", "NO_COLOR=1",
        ]  # fmt: skip
        self.running = self._configurations()

    def shell(self, command: str) -> str:
        """What a person sees: both streams, and a status that is not 0."""
        if not self.mesh.has_traffic_extension:
            # As docs/istio.md says for Istio before 1.30.
            command = re.sub(r"(kubectl \w+ -k \S+/mesh-wide)\b", r"\1-istio-1.29", command)
        full = inside(HUB, [*self.environment, "bash", "-c", f"cd {self.folder}; exec 2>&1\n{command}"])
        return run(full, check=False).stdout

    def step(self, name: str) -> None:
        """What happens between two blocks; the document names it in a comment."""
        if name == "image":
            # What `make push` would have the user put there.
            shutil.copytree(REPOSITORY / "istio", self.folder / "pinned")
            image = self.folder / "pinned/mesh-wide/image.yaml"
            image.write_text(re.sub(r"url: .*", f"url: {self.plugins.image}", image.read_text()))
            (self.folder / "istio").unlink()
            (self.folder / "pinned").rename(self.folder / "istio")
        elif name in ("installed", "updated"):
            self._wait_for_another_configuration()
        elif name == "traffic":
            self._call()
        elif name == "shop is enforced":
            client, _, bank = self.workloads
            assert client.http("news.example").status == 403
            assert not client.tls("news.example").passed
            assert client.tls("api.partner.example").passed and client.tcp(DATABASE, 3306).passed
            assert bank.http("news.example").passed
        elif name == "all is enforced":
            client, _, bank = self.workloads
            assert client.tls("api.partner.example").passed and bank.http("bank.example").passed
            assert not bank.http("api.partner.example").passed and not bank.tls("news.example").passed
        else:
            raise AssertionError(f"no such step: {name}")

    def _call(self) -> None:
        client, crawler, bank = self.workloads
        seen = [
            *(client.tls("api.partner.example") for _ in range(3)), *(client.http("news.example") for _ in range(2)),
            client.tcp(DATABASE, 3306), client.http("reviews", 9080), client.http(METADATA, 80, METADATA),
            crawler.tls("eu.saas.example"), *(bank.http("bank.example") for _ in range(2)),
        ]  # fmt: skip
        assert all(one.status for one in seen), seen
        for workload in self.workloads:
            last = [one for one in seen if one.client.startswith(f"{workload.pod.address}:")][-1]
            workload.logged(last)

    def _configurations(self) -> list[set[tuple[str, str]]]:
        """For each workload the plugins and the hashes of configurations that its sidecar has run: a plugin that was taken
        away by another test leaves its own there."""

        def of(workload: Workload) -> set[tuple[str, str]]:
            running = [name for name, value in workload.pod.metrics("egress_config_info").items() if value == 1]
            label = lambda name, key: re.search(rf'{key}="([\w-]+)"', name).group(1)  # noqa: E731
            return {(label(name, "egress_plugin"), label(name, "egress_config")) for name in running}

        return [of(workload) for workload in self.workloads]

    def _wait_for_another_configuration(self) -> None:
        def is_run() -> bool:
            """Both plugins run a text, the same, that they did not run before."""
            for before, after in zip(self.running, self._configurations()):
                new = after - before
                if {plugin for plugin, _ in new} != {"egress-http", "egress-tcp"} or len({text for _, text in new}) != 1:
                    return False
            return True

        wait("every sidecar to run another configuration", is_run)
        self.running = self._configurations()


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a block, and what it prints. A here-document belongs to its command."""
    lines = block.splitlines()
    while lines:
        assert lines[0].startswith("$ "), f"not a command: {lines[0]}"
        command = [lines.pop(0)[2:]]
        if "<<END" in command[0]:
            while command[-1] != "END":
                command.append(lines.pop(0))
        printed = []
        while lines and not lines[0].startswith("$ "):
            printed.append(lines.pop(0))
        yield "\n".join(command), "\n".join(printed)


def matches(printed: str, expected: str) -> bool:
    """Whether it is that, save times, the number of lines in the logs and of objects in the cluster. A line `...` is any
    number of lines."""

    def plain(text: str) -> str:
        text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)
        text = re.sub(r"\b\d+ (lines|objects)\b", r"N \1", text)
        return "\n".join(line.rstrip() for line in text.splitlines())

    lines = plain(printed).strip("\n").splitlines()
    first, *others = (part.strip("\n").splitlines() for part in re.split(r"^\.\.\.$", plain(expected), flags=re.MULTILINE))
    if lines[: len(first)] != first:
        return False
    if not others:
        return lines == first
    rest = lines[len(first) :]
    *middle, last = others
    for part in middle:
        starts = [at for at in range(len(rest) + 1) if rest[at : at + len(part)] == part]
        if not starts:
            return False
        rest = rest[starts[0] + len(part) :]
    return len(rest) >= len(last) and rest[len(rest) - len(last) :] == last


@pytest.fixture
def walk(
    mesh: Mesh, plugins: Plugins, client: Workload, crawler: Workload, bank: Workload, tmp_path: Path
) -> Iterator[Walk]:
    workloads = [client, crawler, bank]
    accounts = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
        for namespace in ("shop", "bank")
    ]
    pods = [pod_object(one.pod.name, one.pod.workload, one.pod.labels, one.pod.namespace) for one in workloads]
    mesh.control_plane.apply(*accounts, *pods)
    # What other tests have made these workloads log is not theirs to tell here. Envoy writes lines in order, so with this
    # last one all are there.
    for workload in workloads:
        workload.logged(workload.http("bank.example"))
        os.truncate(workload.pod.sidecar.out, 0)
    walk = Walk(mesh, plugins, tmp_path, workloads)
    yield walk
    print(walk.shell("kubectl delete --ignore-not-found -k my-mesh/mesh-wide; kubectl delete -f service-entries.yaml"))
    mesh.control_plane.delete(*pods)
    telemetry = REPOSITORY / "istio/components/access-log/telemetry.yaml"
    mesh.control_plane.kubectl("apply", "-n", "istio-system", "-f", str(telemetry))
    for workload in workloads:
        plugins.wait_gone(workload)


def test_every_command_of_the_walkthrough_prints_what_stands_there(walk: Walk) -> None:
    text = DOCUMENT.read_text()
    made = []
    count = 0
    for part in re.split(r"(<!-- test: .*? -->|```console\n.*?```)", text, flags=re.DOTALL):
        if step := re.fullmatch(r"<!-- test: (.*) -->", part):
            walk.step(step.group(1))
        elif block := re.fullmatch(r"```console\n(.*)```", part, flags=re.DOTALL):
            lines = []
            for command, expected in commands(block.group(1)):
                count += 1
                printed = walk.shell(command).rstrip("\n")
                lines.append("\n".join([f"$ {command}", *([printed] if printed else [])]))
                assert UPDATE or matches(printed, expected), f"$ {command}\n{printed}\n--- expected\n{expected}"
            part = "```console\n" + "\n".join(lines) + "\n```"
        made.append(part)
    if UPDATE:
        DOCUMENT.write_text("".join(made))
    assert count > 15, f"only {count} commands"
