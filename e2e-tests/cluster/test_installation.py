"""The chart on a cluster: comes up in time, in little memory, with nothing left out."""

import json
import subprocess

import pytest

from cluster.kube import SERVICES

pytestmark = pytest.mark.e2e

READY_S = 180
IDLE_BYTES = 6 * 1024**3


def test_everything_is_ready_in_time_after_an_install(installation, record_property):
    record_property("ready_s", installation.seconds)
    print(f"helm install to ready: {installation.seconds:.0f} s")
    assert {each.component for each in installation.pods()} == {*SERVICES, "redis"}
    assert all(each.ready and not each.restarts for each in installation.pods())
    assert installation.seconds <= READY_S


def test_the_constellation_idles_in_little_memory(installation):
    used = {}
    for node in installation.kube.core.list_node().items:
        summary = installation.kube.core.connect_get_node_proxy_with_path(
            node.metadata.name, "stats/summary", _preload_content=False
        )
        for pod in json.loads(summary.data)["pods"]:
            if pod["podRef"]["namespace"] == installation.kube.namespace:
                used[pod["podRef"]["name"]] = pod.get("memory", {}).get("workingSetBytes", 0)
    for name, size in sorted(used.items()):
        print(f"{name}: {size / 2**20:.0f} MiB")
    print(f"together: {sum(used.values()) / 2**30:.2f} GiB")
    assert {each.name for each in installation.pods()} <= set(used)
    assert 0 < sum(used.values()) <= IDLE_BYTES


def test_no_part_of_the_chart_was_left_out(installation):
    assert installation.release.dropped() == []


def test_the_api_server_accepts_every_manifest_once_more(installation):
    kubectl = installation.release.kubectl()
    applied = subprocess.run(
        [*kubectl, "apply", "--dry-run=server", "-f", "-"],
        input=installation.release.rendered(),
        capture_output=True,
        text=True,
    )
    assert applied.returncode == 0, applied.stderr
    assert applied.stdout.count("(server dry run)") > 20


def test_helm_test_asks_a_question_inside_the_cluster(installation):
    said = installation.release.test()
    assert "Phase:          Succeeded" in said, said


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_runs_without_privileges_and_tells_its_settings(installation, service):
    pod = installation.kube.running(service)
    ids = installation.kube.run(pod.name, service, "sh", "-c", "id -u; touch /opt/x 2>&1; true")
    assert ids.splitlines()[0] == "10001"
    assert "Read-only file system" in ids
    first = next(e for e in installation.kube.logs(pod.name) if e["event"] == "settings")
    assert first["settings"]["drain_timeout_s"] > 0
    assert first["settings"]["keepalive"]["max_connection_age_s"] > 0
