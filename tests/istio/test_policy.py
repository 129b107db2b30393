"""`egressctl outbound-traffic-policy`: what it shows is what sidecars do, and what it sets they do from then on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.clients import Seen, Workload
from lab.control_plane import KUBECONFIG, REPOSITORY
from lab.egressctl import Egressctl, Said
from lab.mesh import Mesh
from lab.plugins import MESH_WIDE, NAMESPACE, Plugins
from lab.processes import wait

LISTED = {"registry": [{"hosts": ["api.partner.example"]}]}
BOTH = ["egress-http", "egress-tcp"]
IN_ROOT = "istio-system/egress-http, istio-system/egress-tcp"
# A namespace without pods: no sidecar is troubled by what stands there.
EMPTY = "empty"


def config_of(mesh: Mesh, name: str = "egress-http", namespace: str = "istio-system") -> dict[str, Any]:
    text = mesh.control_plane.kubectl("get", "wasmplugin", name, "-n", namespace, "-o", "json")
    return json.loads(text)["spec"]["pluginConfig"]


def versions(mesh: Mesh) -> list[str]:
    """Changes with any change of a plugin or of the mesh's configuration."""
    form = ["-o", "jsonpath={range .items[*]}{.metadata.name}={.metadata.resourceVersion} {end}"]
    # Not the other ConfigMaps there: istiod writes its leases into them.
    istio = ["configmaps", "-n", "istio-system", "--field-selector", "metadata.name=istio"]
    return [mesh.control_plane.kubectl("get", *which, *form) for which in (["wasmplugins", "-A"], istio)]


def wait_for(workload: Workload, verdict: str) -> None:
    """Until what is not listed is treated so, over HTTP and over TLS."""

    def is_so(seen: Seen) -> bool:
        return seen.passed == (not verdict.startswith("denied")) and workload.verdict(seen) == verdict

    wait(f"{workload.pod.name}: HTTP {verdict}", lambda: is_so(workload.http("news.example")))
    wait(f"{workload.pod.name}: TLS {verdict}", lambda: is_so(workload.tls("news.example", 8443)))


ALLOWED, DENIED, REPORTED = "allowed allow_any", "denied not_listed", "would_deny not_listed"


@contextmanager
def applied(mesh: Mesh, *objects: dict[str, Any]) -> Iterator[None]:
    mesh.control_plane.apply(*objects)
    try:
        yield
    finally:
        mesh.control_plane.delete(*objects)


@pytest.fixture(scope="module", autouse=True)
def empty_namespace(mesh: Mesh) -> None:
    mesh.control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": EMPTY}})


def sidecar(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    }  # fmt: skip


def plugin(name: str, namespace: str, config: Any) -> dict[str, Any]:
    return {
        "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"url": "oci://registry.invalid/egress-filter", "pluginName": name, "pluginConfig": config},
    }  # fmt: skip


def test_shows_that_no_plugin_is_there(egressctl: Egressctl) -> None:
    said = egressctl()
    assert said.out.splitlines()[0] == "mesh wide outbound traffic policy is set to 'ALLOW_ANY'"
    assert said.row("shop") == said.row("bank") == ["-", "-", "-", "-", "Istio alone: ALLOW_ANY"]
    assert (said.status, said.err) == (0, "")
    assert [row[0] for row in egressctl("-n", "shop").rows] == ["shop"]

    other = egressctl("--mesh-config-map", "istio-canary")
    line = "mesh wide outbound traffic policy is not found, there is no ConfigMap istio-system/istio-canary: Istio's default 'ALLOW_ANY' holds"
    assert (other.out.splitlines()[0], other.status) == (line, 0)


RESTRICTED = {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}


def test_shows_istio_s_policy_as_istio_reads_it(mesh: Mesh, egressctl: Egressctl, client: Workload, bank: Workload) -> None:
    def status_is(status: int) -> None:
        wait(f"{status}", lambda: client.http("news.example").status == status)

    control_plane = mesh.control_plane
    text = control_plane.mesh_text()
    config = yaml.safe_load(text)
    not_set = "mesh wide outbound traffic policy is not set in ConfigMap istio-system/istio: Istio's default 'ALLOW_ANY' holds"
    restricted = "mesh wide outbound traffic policy is set to 'REGISTRY_ONLY'"
    try:
        for policy, status, line in (({}, 502, restricted), (None, 200, not_set), ({"mode": 0}, 502, restricted)):
            control_plane.set_mesh_text(yaml.safe_dump({**config, "outboundTrafficPolicy": policy}))
            status_is(status)
            assert egressctl().out.splitlines()[0] == line, policy
        del config["outboundTrafficPolicy"]
        control_plane.set_mesh_text(yaml.safe_dump(config))
        status_is(200)
        assert egressctl().out.splitlines()[0] == not_set
    finally:
        mesh.set_mode("ALLOW_ANY", client, bank)

    def shown(*rows: str) -> None:
        assert [row[5] for row in egressctl("-n", "shop").rows] == [f"Istio alone: {row}" for row in rows]

    with applied(mesh, sidecar("default", "istio-system", **RESTRICTED)):
        status_is(502)
        shown("REGISTRY_ONLY by Sidecar istio-system/default")
        # Only one counts: the namespace's own has no policy, so the mesh's holds.
        with applied(mesh, sidecar("default", "shop", egress=[{"hosts": ["*/*"]}])):
            status_is(200)
            shown("ALLOW_ANY")
    with applied(mesh, sidecar("default", "shop", outboundTrafficPolicy={})):
        status_is(502)
        shown("REGISTRY_ONLY by Sidecar shop/default")
        assert bank.http("news.example").passed
        assert egressctl().row("bank")[4] == "Istio alone: ALLOW_ANY"
        of_client = {"workloadSelector": {"labels": {"app": "client"}}}
        with applied(mesh, sidecar("client", "shop", **of_client)):
            status_is(200)
            shown("REGISTRY_ONLY by Sidecar shop/default", "ALLOW_ANY")
    status_is(200)


def test_sets_nothing_where_the_filter_is_not(egressctl: Egressctl) -> None:
    said = egressctl("restricted", "--yes")
    assert (said.status, said.out) == (2, "")
    assert "no plugin of the filter in namespace istio-system" in said.err
    assert "kubectl apply -k istio/mesh-wide" in said.err
    said = egressctl("restricted", "-n", "shop", "--yes")
    assert said.status == 2 and "no plugin of the filter is on namespace shop" in said.err
    said = egressctl("-n", "nowhere")
    assert said.status == 2 and "there is no namespace nowhere" in said.err


def test_sets_the_policy_of_the_whole_mesh(
    mesh: Mesh, plugins: Plugins, egressctl: Egressctl, client: Workload, bank: Workload
) -> None:
    with plugins.installed(MESH_WIDE, LISTED, on=[client, bank]):
        # Beside the listed host there is the marker of the installation.
        assert egressctl().row("shop") == ["both", "REGISTRY_ONLY", "ENFORCE", "2", IN_ROOT]
        before = config_of(mesh)
        for arguments, verdict, fields in (
            (["allowed"], ALLOWED, {"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}}),
            (["restricted", "--enforcement", "report"], REPORTED, {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "enforcement": "REPORT"}),
            (["--enforcement", "enforce"], DENIED, {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "enforcement": "ENFORCE"}),
        ):
            said = egressctl(*arguments, "--yes")
            assert said.status == 0, said
            assert said.out.endswith("WasmPlugin istio-system/egress-http changed\nWasmPlugin istio-system/egress-tcp changed\n")
            for name in BOTH:
                assert config_of(mesh, name) == {**before, **fields}
            for workload in (client, bank):
                wait_for(workload, verdict)
            mode, enforcement = fields["outboundTrafficPolicy"]["mode"], fields.get("enforcement", "ENFORCE")
            assert egressctl().row("bank") == ["both", mode, enforcement, "2", IN_ROOT]
            again = egressctl(*arguments, "--yes")
            assert (again.out, again.status) == ("nothing to change: it is so already\n", 0)
        assert client.http("api.partner.example").passed


def test_sets_the_policy_of_one_namespace_and_leaves_narrower_exceptions(
    mesh: Mesh, plugins: Plugins, egressctl: Egressctl, client: Workload, crawler: Workload, bank: Workload
) -> None:
    narrower = {"match": {"workloads": ["crawler"]}, "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "enforcement": "REPORT"}
    config = {**LISTED, "overrides": [narrower]}
    with plugins.installed(MESH_WIDE, config, on=[client, crawler, bank]):
        said = egressctl()
        assert said.row("shop") == ["both", "REGISTRY_ONLY", "ENFORCE", "2", IN_ROOT]
        assert said.row("shop (workload crawler)") == ["both", "REGISTRY_ONLY", "REPORT", "2", IN_ROOT]
        wait_for(crawler, REPORTED)

        said = egressctl("allowed", "-n", "shop", "--yes")
        assert said.status == 0, said
        note = f"note: REGISTRY_ONLY stays for workload crawler, by overrides[1] ({IN_ROOT})"
        assert note in said.err.splitlines()
        new = {"match": {"namespaces": ["shop"]}, "outboundTrafficPolicy": {"mode": "ALLOW_ANY"}}
        assert [config_of(mesh, name)["overrides"] for name in BOTH] == [[new, narrower]] * 2
        for workload, verdict in ((client, ALLOWED), (crawler, REPORTED), (bank, DENIED)):
            wait_for(workload, verdict)
        said = egressctl()
        assert said.row("shop")[:3] == ["both", "ALLOW_ANY", "ENFORCE"]
        assert said.row("shop (workload crawler)")[:3] == ["both", "REGISTRY_ONLY", "REPORT"]
        assert said.row("bank")[:3] == ["both", "REGISTRY_ONLY", "ENFORCE"]

        assert egressctl("restricted", "-n", "shop", "--enforcement", "report", "--yes").status == 0
        new = {**new, "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "enforcement": "REPORT"}
        assert [config_of(mesh, name)["overrides"] for name in BOTH] == [[new, narrower]] * 2
        for workload, verdict in ((client, REPORTED), (bank, DENIED)):
            wait_for(workload, verdict)


def test_the_strictest_of_several_plugins_counts_and_a_namespace_gets_both_changed(
    mesh: Mesh, plugins: Plugins, egressctl: Egressctl, client: Workload
) -> None:
    mesh_wide = {**LISTED, "outboundTrafficPolicy": {"mode": "ALLOW_ANY"}}
    own = {"registry": [{"hosts": ["api.partner.example", "other.example"]}]}
    with (
        plugins.installed(MESH_WIDE, mesh_wide, on=[client]),
        plugins.installed(NAMESPACE, own, on=[client], is_alone=False),
    ):
        rows = egressctl("-n", "shop").rows
        assert rows == [
            ["shop", "both", "REGISTRY_ONLY", "ENFORCE", "-", "the strictest of these:"],
            ["ALLOW_ANY", "ENFORCE", "2", f"- {IN_ROOT}"],
            ["REGISTRY_ONLY", "ENFORCE", "3", "- shop/egress-http, shop/egress-tcp"],
        ]
        wait("HTTP to be denied", lambda: client.http("news.example").status == 403)

        said = egressctl("allowed", "--dry-run")
        assert "note: namespace shop has plugins of its own, which decide, too: REGISTRY_ONLY (shop/egress-http, shop/egress-tcp)" in said.err

        assert egressctl("allowed", "-n", "shop", "--yes").status == 0
        wait("HTTP to pass", lambda: client.http("news.example").passed)
        wait("TLS to pass", lambda: client.tls("news.example", 8443).passed)
        assert config_of(mesh, namespace="shop")["outboundTrafficPolicy"] == {"mode": "ALLOW_ANY"}
        override = {"match": {"namespaces": ["shop"]}, "outboundTrafficPolicy": {"mode": "ALLOW_ANY"}}
        assert config_of(mesh)["overrides"] == [override]
        shown = json.loads(egressctl("-n", "shop", "-o", "json").out)
        assert shown["mesh"] == {
            "configMap": "istio-system/istio", "found": True, "mode": "ALLOW_ANY", "effectiveMode": "ALLOW_ANY",
        }  # fmt: skip
        assert [(one["plugin"], one["mode"], len(one["decidedBy"])) for one in shown["namespaces"]] == [
            ("egress-http", "ALLOW_ANY", 2), ("egress-tcp", "ALLOW_ANY", 2),
        ]  # fmt: skip
        assert yaml.safe_load(egressctl("-n", "shop", "-o", "yaml").out) == shown


DIFFERENCE = """\
--- WasmPlugin empty/egress-http
+++ WasmPlugin empty/egress-http
@@ -3,3 +3,6 @@
     registry:
     - hosts:
       - api.partner.example
+    outboundTrafficPolicy:
+      mode: ALLOW_ANY
+    enforcement: REPORT

"""


def test_a_dry_run_and_a_missing_terminal_change_nothing(mesh: Mesh, egressctl: Egressctl) -> None:
    helm = plugin("egress-http", EMPTY, LISTED)
    helm["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
    with applied(mesh, helm):
        before = versions(mesh)
        arguments = ["allowed", "--enforcement", "report", "-n", EMPTY]
        said = egressctl(*arguments, "--dry-run")
        assert said.status == 0 and "dry run: the server would take this; nothing was changed" in said.err
        warning = "warning: WasmPlugin empty/egress-http is managed by Helm, which will set it back; change it there, too"
        assert warning in said.err.splitlines()
        assert said.out == DIFFERENCE
        said = egressctl(*arguments)
        assert said.status == 2 and "pass --yes to apply or --dry-run to look" in said.err
        assert versions(mesh) == before


def test_asks_on_a_terminal_and_does_as_told(mesh: Mesh, egressctl: Egressctl) -> None:
    with applied(mesh, plugin("egress-http", EMPTY, LISTED)):
        before = versions(mesh)
        for answer in ("n", ""):
            asked = egressctl.ask("allowed", "-n", EMPTY)
            assert "Apply these changes to context lab? [y/N]" in re.sub(r"\x1b\[[0-9;]*m", "", asked.question)
            said = asked.answer(answer)
            assert said.status == 1 and "nothing was changed" in said.err
            assert versions(mesh) == before
        said = egressctl.ask("allowed", "-n", EMPTY).answer("y")
        assert said.status == 0 and said.out.endswith("WasmPlugin empty/egress-http changed\n")
        assert config_of(mesh, namespace=EMPTY)["outboundTrafficPolicy"] == {"mode": "ALLOW_ANY"}


def test_changes_nothing_that_somebody_else_has_changed_meanwhile(mesh: Mesh, egressctl: Egressctl) -> None:
    with applied(mesh, plugin("egress-http", EMPTY, LISTED)):
        asked = egressctl.ask("allowed", "-n", EMPTY)
        mesh.control_plane.apply(plugin("egress-http", EMPTY, {**LISTED, "enforcement": "REPORT"}))
        said = asked.answer("y")
        assert said.status == 2
        assert "somebody else has changed WasmPlugin empty/egress-http meanwhile; run the command again" in said.err
        assert config_of(mesh, namespace=EMPTY) == {**LISTED, "enforcement": "REPORT"}


def test_shows_what_the_filter_refuses_and_does_not_add_to_it(mesh: Mesh, egressctl: Egressctl) -> None:
    broken = {"registry": [{"hosts": ["*bad.example"]}], "enforcment": "REPORT"}
    with applied(mesh, plugin("egress-http", EMPTY, broken), plugin("egress-tcp", EMPTY, LISTED)):
        said = egressctl("-n", EMPTY)
        assert said.status == 1
        assert said.rows == [
            [EMPTY, "egress-http", "INVALID", "-", "-", "empty/egress-http"],
            [EMPTY, "egress-tcp", "REGISTRY_ONLY", "ENFORCE", "1", "empty/egress-tcp"],
        ]
        problem = 'INVALID WasmPlugin empty/egress-http is refused by the filter: enforcment: unknown field; did you mean "enforcement"?'
        assert problem in said.out
        assert said.out.endswith("tcp, metrics (and 1 more)\n")
        assert egressctl("-n", EMPTY, "-o", "json").status == 1
        before = versions(mesh)
        said = egressctl("allowed", "-n", EMPTY, "--yes")
        assert said.status == 2 and "WasmPlugin empty/egress-http: the filter would refuse it:" in said.err
        assert '"*bad.example": the wildcard must be a whole label; use "*.bad.example"' in said.err
        assert versions(mesh) == before


def test_sets_istio_s_own_policy_and_leaves_the_rest_of_its_text(
    mesh: Mesh, egressctl: Egressctl, client: Workload, bank: Workload
) -> None:
    control_plane = mesh.control_plane
    text = "# Whoever edits this: ask first.\n" + control_plane.mesh_text()
    control_plane.set_mesh_text(text)
    try:
        said = egressctl("restricted", "--mesh-config", "--yes")
        assert said.status == 0, said
        assert "-  mode: ALLOW_ANY\n+  mode: REGISTRY_ONLY\n" in said.out
        assert said.out.endswith("ConfigMap istio-system/istio changed\n")
        assert "mesh_denied" in said.err
        assert control_plane.mesh_text() == text.replace("mode: ALLOW_ANY", "mode: REGISTRY_ONLY")
        for workload in (client, bank):
            wait("HTTP to be refused by Istio", lambda workload=workload: workload.http("news.example").status == 502)
            wait("TLS to be closed by Istio", lambda workload=workload: not workload.tls("news.example", 8443).passed)
        assert egressctl().out.splitlines()[0] == "mesh wide outbound traffic policy is set to 'REGISTRY_ONLY'"
        again = egressctl("restricted", "--mesh-config", "--yes")
        assert again.out == "nothing to change: it is so already\n"
        # The plugins alone, which then allow what Istio does not.
        with applied(mesh, plugin("egress-http", EMPTY, LISTED)):
            said = egressctl("allowed", "-n", EMPTY, "--dry-run")
            assert "Istio's own policy is REGISTRY_ONLY" in said.err

        assert egressctl("allowed", "--mesh-config", "--yes").status == 0
        assert control_plane.mesh_text() == text
        for workload in (client, bank):
            wait("HTTP to pass", lambda workload=workload: workload.http("news.example").passed)
            wait("TLS to pass", lambda workload=workload: workload.tls("news.example", 8443).passed)
        said = egressctl("allowed", "--mesh-config", "--mesh-config-map", "istio-canary", "--yes")
        assert said.status == 2 and "there is no ConfigMap istio-system/istio-canary" in said.err
    finally:
        mesh.set_mode("ALLOW_ANY", client, bank)


def test_reads_every_page_of_a_long_list(mesh: Mesh, egressctl: Egressctl) -> None:
    """The API server gives 500 objects at a time; what counts here comes last."""
    many = [sidecar(f"a-{n:03}", EMPTY, workloadSelector={"labels": {"n": str(n)}}) for n in range(500)]
    last = sidecar("z", EMPTY, outboundTrafficPolicy={"mode": "REGISTRY_ONLY"})
    path = f"/apis/networking.istio.io/v1/namespaces/{EMPTY}/sidecars"
    # One connection for all: kubectl takes minutes.
    requests = [
        f'url = "https://127.0.0.1:6443{path}"\ninsecure\nfail\noutput = "/dev/null"\n'
        f'header = "Authorization: Bearer admin-token"\nheader = "Content-Type: application/json"\ndata = {json.dumps(json.dumps(one))}\n'
        for one in [*many, last]
    ]
    config = mesh.folder / "sidecars.curl"
    config.write_text("next\n".join(requests))
    try:
        mesh.control_plane.in_hub("curl", "-sS", "-K", str(config))
        assert egressctl("-n", EMPTY).row(EMPTY)[4] == "Istio alone: REGISTRY_ONLY by Sidecar empty/z"
    finally:
        mesh.control_plane.kubectl("delete", "--raw", path)


def test_a_trafficextension_of_the_user_s_own_is_shown_and_set(mesh: Mesh, egressctl: Egressctl) -> None:
    if not mesh.has_traffic_extension:
        # Istio 1.30 brings the kind; that it is not there is no failure.
        assert egressctl("-n", EMPTY).status == 0
        return
    extension = {
        "apiVersion": "extensions.istio.io/v1alpha1", "kind": "TrafficExtension",
        "metadata": {"name": "egress", "namespace": EMPTY},
        "spec": {"wasm": {"url": "oci://registry.invalid/egress-filter", "pluginName": "egress-http", "pluginConfig": LISTED}},
    }  # fmt: skip
    with applied(mesh, extension):
        assert egressctl("-n", EMPTY).rows[0] == [EMPTY, "egress-http", "REGISTRY_ONLY", "ENFORCE", "1", "TrafficExtension empty/egress"]
        said = egressctl("allowed", "-n", EMPTY, "--yes")
        assert said.out.endswith("TrafficExtension empty/egress changed\n"), said
        text = mesh.control_plane.kubectl("get", "trafficextension", "egress", "-n", EMPTY, "-o", "json")
        wasm = json.loads(text)["spec"]["wasm"]
        assert wasm["pluginConfig"] == {**LISTED, "outboundTrafficPolicy": {"mode": "ALLOW_ANY"}}
        assert wasm["pluginName"] == "egress-http"


def test_the_documented_roles_are_enough_and_no_more(mesh: Mesh, egressctl: Egressctl) -> None:
    page = (REPOSITORY / "docs/egressctl/outbound-traffic-policy.md").read_text()
    roles = [one for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) for one in yaml.safe_load_all(block)]
    viewer, editor = (role for role in roles if role.get("kind") == "ClusterRole")

    def as_somebody_with(*roles: dict[str, Any]) -> Path:
        name = f"user-{len(roles)}"
        subject = {"kind": "ServiceAccount", "name": name, "namespace": EMPTY}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": EMPTY}}
        bindings = [
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": {"name": f"{name}-{role['metadata']['name']}"}, "subjects": [subject],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role["metadata"]["name"]},
            }
            for role in roles
        ]  # fmt: skip
        mesh.control_plane.apply(account, *roles, *bindings)
        token = mesh.control_plane.kubectl("create", "token", name, "-n", EMPTY).strip()
        path = mesh.folder / f"kubeconfig-{name}"
        path.write_text(KUBECONFIG.replace("admin-token", token))
        return path

    nobody, looks, changes = as_somebody_with(), as_somebody_with(viewer), as_somebody_with(viewer, editor)
    with applied(mesh, plugin("egress-http", EMPTY, LISTED)):
        said: Said = egressctl(kubeconfig=nobody)
        assert said.status == 2 and "you may not get ConfigMap istio-system/istio" in said.err
        assert "ask for a role with the verb `get` on `configmaps`" in said.err
        wait("the role to be known", lambda: egressctl(kubeconfig=looks).status == 0)
        assert egressctl(kubeconfig=looks).out == egressctl().out
        assert egressctl("-n", EMPTY, kubeconfig=looks).out == egressctl("-n", EMPTY).out
        for arguments in (["--yes"], ["--dry-run"]):
            said = egressctl("allowed", "-n", EMPTY, *arguments, kubeconfig=looks)
            assert said.status == 2 and "you may not patch WasmPlugin empty/egress-http" in said.err
        said = egressctl("allowed", "-n", EMPTY, "--yes", kubeconfig=changes)
        assert said.status == 0, said
        assert egressctl("allowed", "--mesh-config", "--dry-run", kubeconfig=changes).status == 0
        assert egressctl("restricted", "--mesh-config", "--dry-run", kubeconfig=changes).status == 0

    wrong = mesh.folder / "kubeconfig-wrong"
    wrong.write_text(KUBECONFIG.replace("admin-token", "wrong"))
    said = egressctl(kubeconfig=wrong)
    assert said.status == 2 and "https://127.0.0.1:6443 does not know you" in said.err
