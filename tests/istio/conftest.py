"""The mesh that all tests share. `make test-istio` runs them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lab.clients import Workload  # noqa: E402
from lab.control_plane import REPOSITORY  # noqa: E402
from lab.egressctl import Egressctl  # noqa: E402
from lab.mesh import BANK, CLIENT, CRAWLER, Mesh  # noqa: E402
from lab.plugins import Plugins  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--istio", required=True, help="1.28.3, 1.29.1 or main")
    parser.addoption("--envoy", required=True, type=Path, help="an Envoy binary with V8")
    parser.addoption("--tools", type=Path, default=REPOSITORY / ".tools", help="what scripts/build-istio-tools made")


@pytest.fixture(scope="session")
def mesh(request: pytest.FixtureRequest) -> Iterator[Mesh]:
    if os.geteuid() != 0:
        pytest.exit("the mesh needs root: network namespaces and iptables", returncode=1)
    folder = Path(tempfile.mkdtemp(prefix="egress-mesh-"))
    # The proxy's user must get to its own folder within.
    folder.chmod(0o755)
    options = request.config.option
    mesh = Mesh(folder, options.tools.resolve(), options.istio, options.envoy.resolve())
    try:
        mesh.start()
        yield mesh
    except BaseException:
        print(mesh.logs())
        raise
    finally:
        mesh.stop()
        failed = request.session.testsfailed
        if failed:
            print(f"\nthe logs of the mesh are in {folder}")
        else:
            shutil.rmtree(folder)


@pytest.fixture(scope="session")
def plugins(mesh: Mesh) -> Plugins:
    return Plugins(mesh, mesh.push_image())


@pytest.fixture(scope="session")
def egressctl(mesh: Mesh) -> Egressctl:
    return Egressctl(mesh.control_plane, "outbound-traffic-policy")


@pytest.fixture(scope="session")
def client(mesh: Mesh) -> Workload:
    return Workload(mesh, CLIENT)


@pytest.fixture(scope="session")
def crawler(mesh: Mesh) -> Workload:
    return Workload(mesh, CRAWLER)


@pytest.fixture(scope="session")
def bank(mesh: Mesh) -> Workload:
    return Workload(mesh, BANK)
