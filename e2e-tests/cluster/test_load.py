"""How many conversations the cluster holds, and what more gateways change: a table, of one run.

Every stage is simulated at the pace of 4xH800, so what is loaded is the gateway, Redis and the
network between pods. Where all of them share one small machine, more gateways find no more cores
there; so the number of gateways is varied with each held to a share of a core as well. Figures are
printed and put on the page that `--table` names; asserted is only that few conversations are served
without a fault.
"""

import asyncio
import time

import psutil
import pytest
from parley_client.local.simulation import sections
from parley_evals import load_test
from parley_evals.bench_turns.load import Plan

from cluster.book import LoadRow

pytestmark = [pytest.mark.e2e, pytest.mark.thorough]

PROFILE = "4xH800"
SECONDS = 30.0
FREE, SHARE = "", "400m"
COUNTS = {FREE: (5, 10, 15), SHARE: (3, 6, 9)}


@pytest.mark.parametrize(
    ("limit", "gateways"), [(FREE, 1), (FREE, 2), (SHARE, 1), (SHARE, 2), (SHARE, 3)]
)
async def test_few_conversations_are_served_without_a_fault(
    installation, load_book, limit, gateways
):
    kube = installation.kube
    told = {name: {"settings": each} for name, each in sections(PROFILE).items()}
    told["gateway"] = {"replicas": gateways}
    if limit:
        told["gateway"]["resources"] = {"limits": {"cpu": limit}}
    await asyncio.to_thread(installation.simulate, told)
    await asyncio.to_thread(kube.settle)
    target = Plan(installation.address, [], api_key=installation.key)
    load_book.where = f"Kubernetes {kube.version.git_version}, one replica a stage at {PROFILE}"
    rows = []
    for count in COUNTS[limit]:
        began, before = time.monotonic(), await asyncio.to_thread(spent, kube)
        row = await load_test.measure(target, count, SECONDS)
        after = await asyncio.to_thread(spent, kube)
        took = time.monotonic() - began
        cores = [(end - start) / took for start, end in zip(before, after, strict=True)]
        rows.append(LoadRow(gateways, limit, row, *cores))
        load_book.rows.append(rows[-1])
        print(" | ".join(rows[-1].cells()))
    few = rows[0].row
    assert (few.lost, few.notices) == ((), ())
    assert few.answered == few.turns > 0


def spent(kube):
    """Seconds of CPU of the gateways' processes, and of all of this machine, since each began."""
    gateways = 0.0
    for pod in kube.pods("gateway"):
        # Behind the name, which may have blanks: fields 14 and 15 of proc(5), in ticks of 10 ms.
        fields = kube.run(pod.name, "gateway", "cat", "/proc/1/stat").rpartition(")")[2].split()
        gateways += (int(fields[11]) + int(fields[12])) / 100
    machine = psutil.cpu_times()
    return gateways, sum(machine[:-2]) - machine.idle - machine.iowait
