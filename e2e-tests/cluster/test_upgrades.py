"""Pods replaced one after another under live conversations: nobody notices but for a resume.

On simulated engines, so that what is seen is what replacing costs and not what two cores can carry.
"""

import asyncio

import pytest

from cluster.disturbing import disturbed
from cluster.kube import SERVICES

pytestmark = [pytest.mark.e2e, pytest.mark.thorough]

CONVERSATIONS = 20
RESUME_S = 1.0


@pytest.fixture(scope="module", autouse=True)
def _simulated(installation):
    installation.simulate()


def nothing_was_noticed(tally):
    assert tally.failed == []
    assert tally.failed_calls == []
    assert tally.breaks == []
    assert tally.refused == []
    assert tally.longest_resume <= RESUME_S


async def test_a_rolling_restart_of_everything_loses_nothing(installation, book):
    await asyncio.to_thread(installation.kube.settle)
    what = "rolling restart of all six Deployments, one after another"
    async with disturbed(installation, book, what, CONVERSATIONS) as tally:
        for service in SERVICES:
            installation.kube.restart(service)
            await asyncio.to_thread(installation.kube.settle)
    assert tally.resumes
    nothing_was_noticed(tally)


async def test_an_upgrade_and_its_rollback_lose_nothing(installation, book):
    kube, release = installation.kube, installation.release
    before = {each.name for each in kube.pods("gateway")}
    async with disturbed(installation, book, "helm upgrade, then helm rollback", 6) as tally:
        changed = {"log": {"level": "debug"}}
        await asyncio.to_thread(release.install, 600, changed)
        await asyncio.to_thread(kube.settle)
        assert not before & {each.name for each in kube.pods("gateway")}
        assert settings_in_force(installation)["log"]["level"] == "debug"
        await asyncio.to_thread(release.rollback, 600)
        await asyncio.to_thread(kube.settle)
        assert settings_in_force(installation)["log"]["level"] == "info"
    nothing_was_noticed(tally)


def settings_in_force(installation):
    pod = installation.kube.running("gateway")
    lines = installation.kube.logs(pod.name)
    return next(each for each in lines if each["event"] == "settings")["settings"]
