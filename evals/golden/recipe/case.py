"""A golden case on disk, as the runner reads it."""

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parents[1]
SEED = 20261121
AUDIO_OFFSET = 65536
SEMANTIC_OFFSET = 1024


def write_case(name: str, runs: list[str], tolerance: Any, **more: Any) -> Path:
    """Makes the folder of a case and its case.json; `runs` tells the runner its kind."""
    folder = GOLDEN / name
    folder.mkdir(exist_ok=True)
    meta = {
        "made_by": "evals/golden/make.py: NumPy float64, from the specification",
        "seed": SEED,
        "tolerance": tolerance,
        "reference": {"what": runs},
        **more,
    }
    write_json(folder / "case.json", meta)
    return folder


def write_json(path: Path, value: Any) -> None:
    """Readable JSON."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
