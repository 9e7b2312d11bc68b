import os
import sys
from pathlib import Path

import pytest

# pytest's importlib mode does not put this folder on the path; `tts_fakes` is imported from it.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden cases; without one the test is skipped."""
    default = Path(__file__).resolve().parents[4] / "shared" / "golden"
    folder = Path(os.environ.get("PARLEY_GOLDEN", default))
    if not folder.is_dir():
        pytest.skip(f"no golden folder at {folder}")
    return folder
