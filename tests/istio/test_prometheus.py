"""A real Prometheus scrapes the sidecars' merged endpoint: what the dashboard and the alerts ask for is there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from lab.clients import Workload
from lab.control_plane import REPOSITORY
from lab.mesh import Mesh
from lab.network import CONTROL_PLANE, HUB, inside
from lab.plugins import MESH_WIDE, Plugins
from lab.processes import Process, wait

ISTIO = REPOSITORY / "istio"


class Prometheus:
    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        folder = mesh.folder / "prometheus"
        folder.mkdir()
        scrape = yaml.safe_load((ISTIO / "prometheus/scrape.yaml").read_text())["scrape_configs"][0]
        # Debian's Prometheus is built without Kubernetes, which would give the targets and these labels.
        for key in ("kubernetes_sd_configs", "relabel_configs"):
            scrape.pop(key)
        scrape |= {"scrape_interval": "1s", "static_configs": [
            {"targets": [f"{pod.address}:15020"], "labels": {"namespace": pod.namespace, "pod": pod.name}}
            for pod in mesh.pods
        ]}  # fmt: skip
        config = {
            "global": {"evaluation_interval": "1s"}, "scrape_configs": [scrape],
            "rule_files": [str(ISTIO / "prometheus/rules.yaml")],
        }  # fmt: skip
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        arguments = [
            f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={CONTROL_PLANE}:9090",
        ]  # fmt: skip
        self.process = Process("prometheus", inside(HUB, ["prometheus", *arguments]), folder)
        wait("Prometheus", lambda: self.process.is_alive() and self.get("/-/ready") is not None)

    def get(self, path: str) -> str | None:
        command = inside(HUB, ["curl", "-sf", "-m", "10", f"{CONTROL_PLANE}:9090{path}"])
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout if done.returncode == 0 else None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression gives now."""
        page = self.get(f"/api/v1/query?query={quote(expression)}")
        assert page is not None, expression
        answer = json.loads(page)
        assert answer["status"] == "success", (expression, answer)
        return answer["data"]["result"]

    def value(self, expression: str) -> float:
        samples = self.query(expression)
        return float(samples[0]["value"][1]) if samples else 0.0


@pytest.fixture(scope="module")
def prometheus(mesh: Mesh) -> Iterator[Prometheus]:
    prometheus = Prometheus(mesh)
    yield prometheus
    prometheus.process.stop()


def test_the_dashboard_and_the_alerts_find_what_happened(
    plugins: Plugins, prometheus: Prometheus, client: Workload, bank: Workload
) -> None:
    config = {
        "registry": [{"hosts": ["api.partner.example"]}, {"hosts": ["files.partner.example"], "expires": "2020-01-01T00:00:00Z"}],
        "deny": [{"addresses": ["169.254.169.254"]}],
        "overrides": [{"match": {"namespaces": ["bank"]}, "enforcement": "REPORT"}],
        "metrics": {"responses": True},
    }  # fmt: skip
    with plugins.installed(MESH_WIDE, config, on=[client, bank]):
        for workload in (client, bank):
            for _ in range(3):
                workload.http("api.partner.example")
                workload.tls("api.partner.example")
                workload.http("news.example")
                workload.tls("news.example")
            workload.http("files.partner.example")
            workload.http("169.254.169.254")

        def labels(verdict: str, host: str, pod: str, namespace: str) -> str:
            return f'egress_verdict="{verdict}",egress_host="{host}",pod="{pod}",namespace="{namespace}"'

        for pod, namespace, refused in (("client", "shop", "denied"), ("bank", "bank", "would_deny")):
            for metric in ("egress_requests_total", "egress_connections_total"):
                for verdict, host in ((refused, "news.example"), ("allowed", "api.partner.example")):
                    series = f"{metric}{{{labels(verdict, host, pod, namespace)}}}"
                    # Counters outlive the plugins of other tests.
                    wait(f"3 of {series}", lambda series=series: prometheus.value(series) >= 3)
        assert prometheus.value('egress_sent_bytes_total{egress_host="api.partner.example",pod="client"}') > 0
        # Of plugins that other tests have taken away it stays 1.
        assert prometheus.value('sum(egress_config_info{pod="client"} == 1)') >= 2

        # Every rule can be evaluated, and the alerts that need no time to pass are there.
        groups = json.loads(prometheus.get("/api/v1/rules") or "")["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        wait("every rule to be evaluated", lambda: all(rule["health"] == "ok" for rule in all_rules(prometheus)))
        assert len(rules) >= 12
        expected = {"EgressNewHostDenied": "shop", "EgressWouldDeny": "bank", "EgressExpiredEntryInUse": "shop"}
        for alert, namespace in expected.items():
            wait(f"{alert} for {namespace}", lambda a=alert, n=namespace: has_alert(prometheus, a, n))

        # Every expression of the dashboard is valid; those that ask for what has happened find it.
        done = subprocess.run([str(ISTIO / "grafana/queries")], capture_output=True, text=True, timeout=60, check=True)
        queries = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(queries) > 20

        def empty() -> set[str]:
            return {query["panel"] for query in queries if not prometheus.query(query["expr"])}

        # Rates need two scrapes.
        wait("data in every panel but these", lambda: empty() <= NOTHING_HAPPENED)


# Panels of what these tests have no cause for.
NOTHING_HAPPENED = {
    "Responses with 5xx by host", "Unverified destinations", "Missing and invalid names", "Decisions without a host",
}  # fmt: skip


def all_rules(prometheus: Prometheus) -> list[dict[str, Any]]:
    groups = json.loads(prometheus.get("/api/v1/rules") or "")["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def has_alert(prometheus: Prometheus, name: str, namespace: str) -> bool:
    alerts = json.loads(prometheus.get("/api/v1/alerts") or "")["data"]["alerts"]
    return any(one["labels"]["alertname"] == name and one["labels"].get("namespace") == namespace for one in alerts)


# Keeps one connection, so that ten thousand requests are quick.
FLOOD = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=30)
for number in range(10_000):
    connection.request("GET", "/", headers={"Host": f"made-up-{number}.example"})
    response = connection.getresponse()
    response.read()
    assert response.status == 403, response.status
print("done")
"""


def test_ten_thousand_denied_hosts_leave_a_bounded_number_of_series(
    plugins: Plugins, prometheus: Prometheus, crawler: Workload
) -> None:
    with plugins.installed(MESH_WIDE, {}, on=[crawler]):
        done = crawler.pod.run("python3", "-c", FLOOD, "203.0.113.20", timeout=300)
        assert done.stdout == "done\n", done.stderr
        mine = 'egress_requests_total{pod="crawler",egress_verdict="denied"}'
        wait("all of them to be counted", lambda: prometheus.value(f"sum({mine})") >= 10_000)
        # metrics.unlistedHosts is 100 by default; hosts that were denied before are among them, and so is `other`.
        assert prometheus.value(f"count({mine})") <= 101 + 10
        overflow = prometheus.value('sum(egress_unlisted_hosts_overflow_total{pod="crawler"})')
        assert overflow >= 9_900
