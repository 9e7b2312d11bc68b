"""What breaks on clusters, under live conversations: sessions and answers outlive all of it."""

import asyncio

import pytest

from cluster.disturbing import disturbed
from cluster.kube import SERVICES
from cluster.traffic import more_answers
from cluster.waiting import until

pytestmark = pytest.mark.e2e

CONVERSATIONS = 6
# What a client may be told while a stage is away.
TYPED = {"STAGE_LOST", "STAGE_TIMEOUT", "UNREACHABLE", "STREAM_BROKEN", "DRAINING", "WARMING_UP"}


@pytest.fixture(autouse=True)
def whole(installation):
    """Each disruption finds everything in order."""
    installation.kube.settle()


def told_why(tally):
    reasons = {*tally.failed, *tally.breaks, *tally.refused}
    reasons |= {each.split(": ")[1] for each in tally.failed_calls}
    assert reasons <= TYPED


def services(*always):
    """All six; those that are not named are looked at thoroughly only."""
    return [
        pytest.param(each, marks=() if each in always else pytest.mark.thorough)
        for each in SERVICES
    ]


@pytest.mark.parametrize("service", services("gateway", "chat-llm"))
async def test_a_deleted_pod_loses_no_session(installation, book, service):
    async with disturbed(installation, book, f"pod of {service} deleted", CONVERSATIONS) as tally:
        installation.kube.delete(installation.kube.running(service).name)
    told_why(tally)


@pytest.mark.parametrize(
    "service",
    [
        pytest.param("gateway", marks=pytest.mark.thorough),
        pytest.param("chat-llm", marks=pytest.mark.thorough),
        "vocoder",
    ],
)
async def test_a_killed_container_loses_no_session(installation, book, service):
    if installation.rig is None:
        pytest.skip("only the node can kill the first process of a container")
    kube, what = installation.kube, f"kill -9 of {service}"
    async with disturbed(installation, book, what, CONVERSATIONS) as tally:
        pod = kube.running(service)
        installation.rig.kill(kube.container_id(pod.name, service))
        await asyncio.to_thread(restarted, installation, pod, 60)
    told_why(tally)


@pytest.mark.thorough
async def test_a_stage_out_of_memory_loses_no_session(installation, book):
    what = "tts out of memory"
    async with disturbed(installation, book, what, CONVERSATIONS) as tally:
        pod = installation.kube.running("tts")
        # Memory of the container that is no process's own: the largest process is the service's.
        eat = (
            "import os\nkept = os.memfd_create('kept')\nwhile True: os.write(kept, b'x' * 2**24)\n"
        )
        await asyncio.to_thread(installation.kube.run, pod.name, "tts", "python3", "-c", eat)
        after = await asyncio.to_thread(restarted, installation, pod, 60)
        assert after.reason == "OOMKilled"
    told_why(tally)


@pytest.mark.thorough
async def test_a_restarted_redis_loses_no_session(installation, book):
    async with disturbed(installation, book, "pod of Redis deleted", CONVERSATIONS) as tally:
        installation.kube.delete(installation.kube.running("redis").name)
    told_why(tally)


@pytest.mark.thorough
async def test_a_drained_node_loses_no_session(installation, book):
    kube = installation.kube
    nodes = {each.node for each in kube.pods()}
    if len(kube.core.list_node().items) < 2:
        pytest.skip("needs two nodes")
    node = max(nodes, key=lambda name: sum(each.node == name for each in kube.pods()))
    try:
        async with disturbed(installation, book, "a node drained", CONVERSATIONS) as tally:
            await asyncio.to_thread(kube.drain, node)
    finally:
        kube.cordon(node, closed=False)
    told_why(tally)


@pytest.mark.thorough
async def test_scaling_the_gateway_out_and_in_loses_nothing(installation, book):
    kube = installation.kube
    what = "gateway scaled 1, 3, 1"
    try:
        kube.scale("gateway", 1)
        kube.settle()
        async with disturbed(installation, book, what, 12) as tally:
            kube.scale("gateway", 3)
            await asyncio.to_thread(kube.settle)
            await more_answers(tally, 12)
            kube.scale("gateway", 1)
            await asyncio.to_thread(kube.settle)
    finally:
        kube.scale("gateway", 2)
        kube.settle()
    assert tally.failed == []
    assert tally.failed_calls == []
    assert tally.longest_resume <= 1.0


def restarted(installation, pod, timeout):
    """Waits until a container has been started again."""
    found = pod

    def more():
        nonlocal found
        found = next(e for e in installation.kube.pods(pod.component) if e.name == pod.name)
        return found.restarts > pod.restarts

    until(more, timeout, lambda: f"not restarted: {installation.kube.describe()}")
    return found
