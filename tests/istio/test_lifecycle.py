"""Installing, changing, breaking and removing the plugins under load."""

from __future__ import annotations

import threading

from lab.clients import Workload
from lab.mesh import Mesh
from lab.pod import Pod
from lab.plugins import MESH_WIDE, NAMESPACE, Plugins
from lab.processes import wait

LISTED = {"registry": [{"hosts": ["api.partner.example"]}]}


class Load:
    """Requests and connections to a listed host, one after the other, until the end."""

    def __init__(self, client: Workload) -> None:
        self.client = client
        self.count = 0
        self.failed: list[object] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ends.is_set():
            for seen in (self.client.http("api.partner.example"), self.client.tls("api.partner.example", 8443)):
                self.count += 1
                if not seen.passed:
                    self.failed.append(seen)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()


def test_an_edited_list_takes_effect_without_a_failed_request(plugins: Plugins, client: Workload) -> None:
    with plugins.installed(MESH_WIDE, LISTED, on=[client]) as objects:
        assert not client.http("new.example").passed
        with Load(client) as load:
            more = {"registry": [{"hosts": ["api.partner.example", "new.example"]}]}
            plugins.update(objects, more, on=[client])
            assert client.http("new.example").passed and client.tls("new.example").passed
            plugins.update(objects, LISTED, on=[client])
            assert not client.http("new.example").passed and not client.tls("new.example").passed
        assert load.count >= 10
        assert load.failed == []


def test_a_broken_list_is_refused_and_the_last_good_one_goes_on(mesh: Mesh, plugins: Plugins, client: Workload) -> None:
    with plugins.installed(MESH_WIDE, LISTED, on=[client]) as objects:
        before = rejected(client.pod)
        with Load(client) as load:
            for one in objects:
                if one["kind"] == "WasmPlugin":
                    one["spec"]["pluginConfig"] = {"registry": [{"hosts": ["*bad.example"]}], "enforcment": "REPORT"}
            mesh.control_plane.apply(*objects)
            # A metric says so, for each plugin; and the log says what is wrong, where, and how to repair it.
            wait("two refused updates", lambda: rejected(client.pod) >= before + 2)
            # Both come in one update, of which Envoy reads on only as far as the first that is refused.
            for problem in (
                'registry[0].hosts[0]: "*bad.example": the wildcard must be a whole label; use "*.bad.example"',
                'enforcment: unknown field; did you mean "enforcement"?',
            ):
                wait(f"the log to say {problem}", lambda problem=problem: problem in client.pod.log())
            assert not client.http("news.example").passed and not client.tls("news.example").passed
        assert load.failed == []
        plugins.update(objects, LISTED, on=[client])
        assert client.http("api.partner.example").passed


def rejected(pod: Pod) -> float:
    """How many configurations of the plugins this proxy has refused, as Prometheus sees it."""
    series = pod.metrics("envoy_extension_config_discovery_")
    return sum(value for name, value in series.items() if "egress" in name and "update_rejected" in name)


def test_without_the_plugins_all_is_as_it_was(plugins: Plugins, client: Workload) -> None:
    with plugins.installed(MESH_WIDE, LISTED, on=[client]):
        assert not client.http("news.example").passed
    assert client.http("news.example").passed and client.tls("news.example", 8443).passed
    assert client.verdict(client.http("news.example")) == "-"


def test_what_passes_has_passed_the_mesh_s_list_and_the_namespace_s(
    plugins: Plugins, client: Workload, bank: Workload
) -> None:
    mesh_wide = {"registry": [{"hosts": ["api.partner.example", "news.example"]}]}
    shop = {"registry": [{"hosts": ["api.partner.example", "other.example"]}]}
    with (
        plugins.installed(MESH_WIDE, mesh_wide, on=[client, bank]),
        plugins.installed(NAMESPACE, shop, on=[client], is_alone=False),
    ):
        for host, in_shop, in_bank in (
            ("api.partner.example", True, True),
            ("news.example", False, True),
            ("other.example", False, False),
        ):
            for ask in ("http", "tls"):
                seen = getattr(client, ask)(host).passed, getattr(bank, ask)(host).passed
                assert seen == (in_shop, in_bank), (ask, host)


def test_report_denies_nothing_and_tells_what_it_would(plugins: Plugins, client: Workload) -> None:
    config = {**LISTED, "enforcement": "REPORT"}
    with plugins.installed(MESH_WIDE, config, on=[client]):
        for seen in (client.http("news.example"), client.tls("news.example"), client.tls("news.example", 8443)):
            assert seen.passed
            assert client.verdict(seen) == "would_deny not_listed"


def test_a_sidecar_that_cannot_fetch_the_module_denies_until_it_can(mesh: Mesh, plugins: Plugins) -> None:
    missing = plugins.image.split("@")[0] + ":missing"
    marked, host, address = plugins.marked(LISTED)
    objects = plugins.build(MESH_WIDE, marked, url=missing)
    mesh.control_plane.apply(*objects)
    late = Workload(mesh, Pod("late", "shop", "10.77.0.5", "late", {"app": "late"}))
    try:
        mesh.start_pod(late.pod, WASM_HTTP_REQUEST_MAX_RETRIES="1")
        late.pod.wait_ready()
        wait("the agent to give up", lambda: "applying deny RBAC filter" in late.pod.log())
        # Istio's agent stands in with a filter that denies all, what is listed as well.
        wait("it to deny", lambda: late.http("api.partner.example").status == 403)
        assert late.tls("api.partner.example", 8443).status == 0
        for one in objects:
            if one["kind"] == "WasmPlugin":
                one["spec"]["url"] = plugins.image
        mesh.control_plane.apply(*objects)
        plugins.wait_for(late, host, address)
        assert late.http("api.partner.example").passed and late.tls("api.partner.example", 8443).passed
        assert not late.http("news.example").passed
    finally:
        mesh.control_plane.delete(*objects)
        mesh.remove_pod(late.pod)


def test_a_wrong_resource_name_lets_no_new_pod_get_ready(mesh: Mesh, plugins: Plugins, client: Workload) -> None:
    """The name of the other Istio versions: running sidecars go on as before, and a metric tells."""
    config, _, _ = plugins.marked(LISTED)
    objects = plugins.build(MESH_WIDE, config)
    names = {True: "wasmplugin/istio-system.egress-tcp", False: "trafficextension/istio-system.egress-tcp~istio-translated-wasmplugin"}
    wrong = f"extensions.istio.io/{names[mesh.has_traffic_extension]}"
    filters = next(one for one in objects if one["kind"] == "EnvoyFilter")
    filters["spec"]["configPatches"][0]["patch"]["value"]["name"] = wrong
    late = Workload(mesh, Pod("wrong", "shop", "10.77.0.6", "wrong", {"app": "wrong"}))
    try:
        mesh.control_plane.apply(*objects)

        def warming() -> float:
            return sum(client.pod.metrics("envoy_listener_manager_total_listeners_warming").values())

        wait("listeners to stay warming", lambda: warming() > 0)
        assert client.tls("news.example", 8443).passed
        mesh.start_pod(late.pod)
        wait("the sidecar to ask for the name", lambda: wrong in late.pod.admin("config_dump"))
        assert not late.pod.is_ready()
        # With the right name it gets ready.
        right = plugins.build(MESH_WIDE, config)
        mesh.control_plane.apply(*right)
        late.pod.wait_ready()
        wait("no listener to be warming", lambda: warming() == 0)
        wait("it to deny", lambda: not late.tls("news.example", 8443).passed)
    finally:
        mesh.control_plane.delete(*objects)
        mesh.remove_pod(late.pod)
        plugins.wait_gone(client)


