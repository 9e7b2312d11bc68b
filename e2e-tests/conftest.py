"""Brings the constellation up once for all tests, in a state folder of its own.

``PARLEY_E2E_WEIGHTS`` names a weights folder to use instead of seeding one.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from constellation import Constellation


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            # The first test pays for seeding weights and starting seven processes.
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def constellation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Constellation]:
    made = Constellation(tmp_path_factory.mktemp("parley") / "state", {})
    weights = os.environ.get("PARLEY_E2E_WEIGHTS")
    up = made.parley("up", *(["--weights", weights] if weights else []))
    assert up.status == 0, up.err
    yield made
    down = made.parley("down")
    assert down.status == 0, down.err
