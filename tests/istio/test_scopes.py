"""Whose list decides: mesh-wide, one namespace, one workload, and several at once."""

from __future__ import annotations

from lab.clients import Workload
from lab.plugins import MESH_WIDE, NAMESPACE, Plugins


def test_a_mesh_wide_list_holds_for_every_namespace_and_overrides_for_some(
    plugins: Plugins, client: Workload, crawler: Workload, bank: Workload
) -> None:
    config = {
        "registry": [{"hosts": ["api.partner.example"]}],
        "overrides": [
            {"match": {"namespaces": ["bank"]}, "registry": [{"hosts": ["bank.example"]}]},
            {"match": {"workloads": ["crawler"]}, "registry": [{"hosts": ["crawled.example"]}]},
            {"match": {"labels": {"app": "crawler"}}, "registry": [{"hosts": ["other.example"]}]},
        ],
    }
    everyone = [client, crawler, bank]
    with plugins.installed(MESH_WIDE, config, on=everyone):
        for host, passes_for in (
            ("api.partner.example", everyone),
            ("bank.example", [bank]),
            ("crawled.example", [crawler]),
            ("other.example", [crawler]),
            ("news.example", []),
        ):
            for workload in everyone:
                for seen in (workload.http(host), workload.tls(host)):
                    assert seen.passed == (workload in passes_for), (host, workload.pod.name, seen)
                    expected = "-" if seen.passed else "denied not_listed"
                    assert workload.verdict(seen) == expected, (host, workload.pod.name)
