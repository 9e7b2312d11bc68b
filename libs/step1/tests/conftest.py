import os
import sys
from pathlib import Path

import pytest
from step1.seeded import write_seeded_chat, write_seeded_tts
from step1.text_tokenizer import TextTokenizer

os.environ.setdefault("OMP_NUM_THREADS", "1")
# pytest's importlib mode does not put this folder on the path; `engine_calls` is imported from it.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("seeded-chat")
    write_seeded_chat(folder)
    return folder


@pytest.fixture(scope="session")
def tts_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("seeded-tts")
    write_seeded_tts(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(chat_folder) -> TextTokenizer:
    return TextTokenizer.load(chat_folder)


@pytest.fixture(scope="session")
def golden() -> Path:
    default = Path(__file__).resolve().parents[4] / "shared" / "golden"
    folder = Path(os.environ.get("PARLEY_GOLDEN", default))
    if not folder.is_dir():
        pytest.skip(f"no golden cases at {folder} (set PARLEY_GOLDEN)")
    return folder
