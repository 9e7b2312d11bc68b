import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ["libs/*/src", *(f"services/{name}/src" for name in ("tokenizer", "chat-llm", "tts"))]
FOLDERS += [f"services/{name}/src" for name in ("vocoder", "asr-context", "gateway")]


def test_every_reason_that_a_caller_can_meet_stands_in_the_reference() -> None:
    reference = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    sources = [path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py")]
    used = {
        reason
        for path in sources
        if path.parent.name != "realtime"  # OpenAI's own codes
        for reason in re.findall(
            r'(?:reason=|Problem\(\s*_[A-Z_]+,\s*)"([A-Z_]+)"', path.read_text(encoding="utf-8")
        )
    }
    assert len(used) > 50
    assert sorted(reason for reason in used if f"`{reason}`" not in reference) == []
