import hashlib

import pytest
from step1.config import Step1Config
from step1.model import Step1Model
from step1.seeded import train_tokenizer, write_seeded_chat
from step1.text_tokenizer import TextTokenizer

pytestmark = pytest.mark.unit


def digest(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_the_same_seed_writes_the_same_bytes(chat_folder, tmp_path):
    write_seeded_chat(tmp_path / "again")
    write_seeded_chat(tmp_path / "other", seed=1)
    assert digest(tmp_path / "again") == digest(chat_folder)
    other = digest(tmp_path / "other")
    assert other["model.safetensors"] != digest(chat_folder)["model.safetensors"]
    assert other["tokenizer.model"] == digest(chat_folder)["tokenizer.model"]


def test_the_folders_load_through_the_serving_code_and_stay_small(chat_folder, tts_folder):
    for folder in (chat_folder, tts_folder):
        assert sum(path.stat().st_size for path in folder.iterdir()) < 40 * 2**20
        assert Step1Model.load(folder).config == Step1Config.load(folder)
        assert Step1Config.load(folder).has_audio_tokens
        assert TextTokenizer.load(folder).size == 1024


def test_the_tokenizer_has_the_published_ids():
    tokenizer = TextTokenizer(train_tokenizer())
    ids = [tokenizer.encode_template(t) for t in ("<unk>", "<s>", "</s>", "<|EOT|>", "<|BOT|>")]
    assert ids == [[0], [1], [2], [3], [4]]
