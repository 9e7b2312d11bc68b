import importlib.util
import sys
from pathlib import Path

import pytest


def load(name: str):
    """Loads a helper of this folder under a name that no other package's tests use."""
    path = Path(__file__).with_name(name + ".py")
    spec = importlib.util.spec_from_file_location(f"gateway_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


for helper in (
    "fake",
    "fake_context",
    "fake_quota",
    "fakes",
    "harness",
    "realtime",
    "talk",
    "turn_stream",
):
    load(helper)


@pytest.fixture
async def gateway():
    async with sys.modules["gateway_harness"].whole_gateway() as running:
        yield running
