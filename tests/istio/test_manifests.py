"""The manifests by themselves: they build, Istio accepts them, and what stands twice says the same. Needs no mesh."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.control_plane import REPOSITORY
from lab.processes import run

ISTIO = REPOSITORY / "istio"
INSTALLATIONS = ["mesh-wide", "mesh-wide-istio-1.29", "namespace"]


@pytest.fixture(scope="session")
def tools(request: pytest.FixtureRequest) -> Path:
    return request.config.option.tools.resolve()


def build(tools: Path, folder: Path) -> str:
    return run([str(tools / "kube/kubectl"), "kustomize", str(folder)]).stdout


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_istio_accepts_each_installation(
    request: pytest.FixtureRequest, tools: Path, tmp_path: Path, installation: str
) -> None:
    istioctl = str(tools / f"istio-{request.config.option.istio}" / "istioctl")
    file = tmp_path / "objects.yaml"
    file.write_text(build(tools, ISTIO / installation))
    # Its status tells. It warns of every EnvoyFilter.
    run([istioctl, "validate", "-f", str(file)])
    analyzed = run([istioctl, "analyze", "--use-kube=false", str(file)], check=False)
    text = analyzed.stdout + analyzed.stderr
    # It knows no namespace here, and says that of EnvoyFilters in general; it must find no error.
    assert analyzed.returncode == 0 and "Error [" not in text, text


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_both_plugins_have_one_list_and_begin_with_report(tools: Path, installation: str) -> None:
    objects = list(yaml.safe_load_all(build(tools, ISTIO / installation)))
    plugins = [one["spec"] for one in objects if one["kind"] == "WasmPlugin"]
    assert [plugin["pluginName"] for plugin in plugins] == ["egress-http", "egress-tcp"]
    assert plugins[0]["pluginConfig"] == plugins[1]["pluginConfig"]
    assert plugins[0]["url"] == plugins[1]["url"]
    assert plugins[0]["pluginConfig"]["enforcement"] == "REPORT"
    namespaces = {one["metadata"]["namespace"] for one in objects}
    assert len(namespaces) == 1
    filters = next(one for one in objects if one["kind"] == "EnvoyFilter")
    name = filters["spec"]["configPatches"][0]["patch"]["value"]["name"]
    assert f"/{namespaces.pop()}.egress-tcp" in name


def test_alert_rules_pass_their_tests() -> None:
    folder = ISTIO / "prometheus"
    run(["promtool", "check", "rules", str(folder / "rules.yaml")])
    done = run(["promtool", "test", "rules", str(folder / "rules.test.yaml")])
    assert "SUCCESS" in done.stdout + done.stderr


def test_the_operator_s_objects_say_what_the_plain_files_say() -> None:
    folder = ISTIO / "prometheus"
    rules = yaml.safe_load((folder / "rules.yaml").read_text())
    assert yaml.safe_load((folder / "prometheusrule.yaml").read_text())["spec"] == rules
    scrape = yaml.safe_load((folder / "scrape.yaml").read_text())["scrape_configs"][0]
    endpoint = yaml.safe_load((folder / "podmonitor.yaml").read_text())["spec"]["podMetricsEndpoints"][0]
    assert endpoint["relabelings"] == camel(scrape["relabel_configs"])
    assert endpoint.get("metricRelabelings") == camel(scrape.get("metric_relabel_configs"))
    assert (endpoint["path"], endpoint["interval"]) == (scrape["metrics_path"], scrape["scrape_interval"])


def camel(value: Any) -> Any:
    """With the operator's names of fields."""
    if isinstance(value, dict):
        return {re.sub(r"_(\w)", lambda match: match[1].upper(), key): camel(one) for key, one in value.items()}
    return [camel(one) for one in value] if isinstance(value, list) else value


def test_the_dashboard_and_the_alerts_build(tools: Path) -> None:
    for folder, kinds in (("prometheus", {"PodMonitor", "PrometheusRule"}), ("grafana", {"ConfigMap"})):
        objects = list(yaml.safe_load_all(build(tools, ISTIO / folder)))
        assert {one["kind"] for one in objects} == kinds
