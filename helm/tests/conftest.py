import json
import os
import shutil
import sys
from pathlib import Path

import pytest

# The chart's own modules: pytest's importlib mode puts nothing on the path.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from chart import REPOSITORY, VARIANTS, Rendered, template  # noqa: E402


@pytest.fixture(scope="session")
def helm() -> str:
    found = os.environ.get("HELM") or shutil.which(
        "helm", path=f"{REPOSITORY}/build/tools:{os.environ['PATH']}"
    )
    assert found, "helm is missing: scripts/helm-test.sh fetches it"
    return found


@pytest.fixture
def render(helm):
    def run(*, name: str = "parley", files=(), values=None, kube: str = "") -> Rendered:
        return Rendered(template(helm, name, json.dumps(values or {}), tuple(files), kube))

    return run


@pytest.fixture(params=VARIANTS)
def variant(request, render) -> Rendered:
    return render(**VARIANTS[request.param])
