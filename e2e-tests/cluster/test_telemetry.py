"""Traces and metrics leave the cluster: a turn is one trace, every pod counts what it served."""

import asyncio

import pytest
from constellation import QUESTION, eventually
from parley_client import ConversationConfig

from cluster.kube import SERVICES

pytestmark = pytest.mark.e2e

SHORT = ConversationConfig(seed=2, max_output_tokens=8)
EVERY = {f"parley-{each}" for each in SERVICES}


async def test_a_turn_is_one_trace_through_all_services(installation):
    if installation.collector is None:
        pytest.skip("pods cannot reach this machine: give --collector-host")
    async with installation.client() as client:
        first, second = await asyncio.gather(
            *(client.ask(QUESTION, config=SHORT).collect() for _ in range(2))
        )
    seen = []
    for answer in (first, second):

        async def traces(turn=answer.started.turn_id):
            found = installation.collector.with_attribute("parley.turn", turn)
            services = {span.service for spans in found.values() for span in spans}
            return found if services >= EVERY else None

        found = await eventually(traces, 30, f"spans of all services for {answer.started.turn_id}")
        assert len(found) == 1
        (trace,) = found
        seen.append(trace)
        spans = found[trace]
        ids = {span.span_id for span in spans}
        roots = [span for span in spans if span.parent_id not in ids]
        assert [span.service for span in roots] == ["parley-gateway"], roots
    assert seen[0] != seen[1]


async def test_every_pod_tells_prometheus_what_it_served(installation):
    async with installation.client() as client:
        await client.ask(QUESTION, config=SHORT).collect()
    for service in SERVICES:
        served = 0.0
        for pod in installation.kube.pods(service):
            lines = installation.kube.metrics(pod.name).splitlines()
            assert any(each.startswith("parley_requests_running") for each in lines)
            served += sum(
                float(each.rsplit(" ", 1)[1])
                for each in lines
                if each.startswith("parley_requests_total{") and 'code="OK"' in each
            )
        assert served > 0, service


def test_services_lead_a_scraper_to_every_pod(installation):
    for service in SERVICES:
        part = "gateway-metrics" if service == "gateway" else service
        endpoints = installation.kube.core.read_namespaced_endpoints(
            installation.kube.name_of(part), installation.kube.namespace
        )
        (subset,) = endpoints.subsets
        assert "metrics" in [each.name for each in subset.ports]
        told = {each.ip for each in subset.addresses}
        assert told == {each.ip for each in installation.kube.pods(service) if each.ready}
