"""The project's own manifests, with a list of the test's: installed as a user would, and taken away again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from .clients import OPAQUE, Workload
from .control_plane import REPOSITORY
from .mesh import Mesh
from .network import NEWS
from .processes import wait

MESH_WIDE, NAMESPACE = "mesh-wide", "namespace"


class Plugins:
    """Installations in one mesh."""

    def __init__(self, mesh: Mesh, image: str) -> None:
        self.mesh, self.image = mesh, image
        self.count = 0

    def build(self, folder: str, config: dict[str, Any], *components: str, url: str | None = None) -> list[dict[str, Any]]:
        """The objects of an installation, by kustomize from the folder in istio/."""
        self.count += 1
        if folder == MESH_WIDE and not self.mesh.has_traffic_extension:
            folder = "mesh-wide-istio-1.29"
        overlay = self.mesh.folder / f"overlay-{self.count}"
        overlay.mkdir()
        manifests = os.path.relpath(REPOSITORY / "istio", overlay)
        patches = [
            {"op": "replace", "path": "/spec/url", "value": url or self.image},
            {"op": "replace", "path": "/spec/pluginConfig", "value": config},
        ]
        kustomization = {
            "resources": [f"{manifests}/{folder}"],
            "components": [f"{manifests}/components/{component}" for component in components],
            "patches": [{"target": {"kind": "WasmPlugin"}, "patch": json.dumps(patches)}],
        }
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        text = self.mesh.control_plane.kubectl("kustomize", str(overlay))
        objects = list(yaml.safe_load_all(text))
        if folder == NAMESPACE and not self.mesh.has_traffic_extension:
            # As the comment in istio/namespace says.
            name = "extensions.istio.io/wasmplugin/shop.egress-tcp"
            filters = next(one for one in objects if one["kind"] == "EnvoyFilter")
            filters["spec"]["configPatches"][0]["patch"]["value"]["name"] = name
        return objects

    def marked(self, config: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
        """The configuration with a host and an address that no other has, by which its taking effect is seen."""
        self.count += 1
        host, address = f"marker-{self.count}.test", f"198.18.{self.count // 256}.{self.count % 256}"
        markers = [{"hosts": [host]}, {"addresses": [address]}]
        return {**config, "registry": [*config.get("registry", []), *markers]}, host, address

    @contextmanager
    def installed(
        self, folder: str, config: dict[str, Any], *components: str, on: list[Workload], is_alone: bool = True
    ) -> Iterator[list[dict[str, Any]]]:
        """Installs, waits until the plugins of these workloads run it, and takes it away at the end.

        `is_alone` if they have no other plugins of ours then.
        """
        marked, host, address = self.marked(config)
        objects = self.build(folder, marked, *components)
        self.mesh.control_plane.apply(*objects)
        try:
            for workload in on:
                self.wait_for(workload, host, address)
            yield objects
        finally:
            self.mesh.control_plane.delete(*objects)
            for workload in on if is_alone else []:
                self.wait_gone(workload)

    def update(self, objects: list[dict[str, Any]], config: dict[str, Any], on: list[Workload]) -> None:
        """Gives installed plugins another configuration."""
        marked, host, address = self.marked(config)
        for one in objects:
            if one["kind"] == "WasmPlugin":
                one["spec"]["pluginConfig"] = marked
        self.mesh.control_plane.apply(*objects)
        for workload in on:
            self.wait_for(workload, host, address)

    def wait_for(self, workload: Workload, host: str, address: str) -> None:
        def runs() -> bool:
            workload.http(host, 80, NEWS)
            workload.tcp(address, 9, OPAQUE)
            series = workload.pod.metrics("egress_")
            return all(any(f'egress_host="{label}"' in one for one in series) for label in (host, address))

        wait(f"{workload.pod.name} to run the configuration of {host}", runs)

    def wait_gone(self, workload: Workload) -> None:
        """Until no listener of the sidecar has a plugin of ours."""

        def is_gone() -> bool:
            return "egress-" not in workload.pod.admin("config_dump?resource=dynamic_listeners&mask=active_state.listener")

        wait(f"{workload.pod.name} to have no plugin", is_gone)
