"""Where the suite runs: processes on this machine (default), the rig, or any cluster.

Without an option the constellation is brought up once for all tests, in a state folder of its own.
`--rig` makes the two-node cluster of k8s/rig, builds and loads the images, installs the chart, and
takes everything down again; `--kubeconfig` installs into a namespace of a cluster that has the
images. Tests in cluster/ need a cluster; tests that take `processes` need processes; all others run
everywhere. ``PARLEY_E2E_WEIGHTS`` names a weights folder, or ``seeded`` for random numbers;
default: the weights/pocket of the checkout, seeded ones while they are not complete.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from constellation import Constellation, running
from parley_client.local.weights import SEEDED

CLUSTER_TESTS = Path(__file__).parent / "cluster"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("target")
    group.addoption("--rig", action="store_true", help="on the cluster of k8s/rig; needs root")
    group.addoption("--kubeconfig", type=Path, help="on the cluster of this file")
    group.addoption("--values", type=Path, action="append", default=[], help="more chart values")
    group.addoption("--gateway", help="host:port of the cluster's gateway; default: found out")
    group.addoption("--collector-host", help="name under which pods reach this machine, for traces")
    group.addoption("--keep", action="store_true", help="leave the cluster and the release")
    group.addoption("--table", type=Path, help="page that gets the tables of a cluster")


def on_cluster(config: pytest.Config) -> bool:
    return bool(config.getoption("--rig") or config.getoption("--kubeconfig"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        # The first test pays for seeding weights and starting seven processes, or a cluster.
        item.add_marker(pytest.mark.timeout(1800 if on_cluster(config) else 600))
        if CLUSTER_TESTS in item.path.parents and not on_cluster(config):
            item.add_marker(pytest.mark.skip(reason="needs --rig or --kubeconfig"))


@pytest.fixture(scope="session")
def installation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["Installation"]:  # noqa: F821 - imported when it is needed
    """Parley on a cluster."""
    from cluster.installation import Target, installed

    option = request.config.getoption
    weights = os.environ.get("PARLEY_E2E_WEIGHTS")
    target = Target(
        rig=option("--rig"),
        kubeconfig=option("--kubeconfig"),
        weights=Path(weights) if weights and weights != SEEDED else None,
        values=tuple(option("--values")),
        gateway=option("--gateway"),
        collector_host=option("--collector-host"),
        keep=option("--keep"),
    )
    with installed(target, tmp_path_factory.mktemp("release")) as made:
        yield made


@pytest.fixture(scope="session")
def constellation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Constellation]:
    """Parley, wherever it runs."""
    state = tmp_path_factory.mktemp("parley") / "state"
    if on_cluster(request.config):
        at = request.getfixturevalue("installation")
        yield Constellation(state, {}, at=at.address, api_key=at.key, seeded=at.seeded)
        return
    with running(state, os.environ.get("PARLEY_E2E_WEIGHTS")) as made:
        yield made


@pytest.fixture(scope="session")
def processes(request: pytest.FixtureRequest, constellation: Constellation) -> Constellation:
    """Parley as processes on this machine."""
    if on_cluster(request.config):
        pytest.skip("needs the processes of this machine")
    return constellation
