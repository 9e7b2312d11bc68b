import shutil
from pathlib import Path

import pytest
from parley_client.local import weights
from parley_client.local.checkpoints import inspect
from parley_client.local.errors import LocalError

pytestmark = [pytest.mark.contract, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "seeded"
    weights.seed(folder, 5)
    return folder


@pytest.fixture
def copy(seeded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(seeded, tmp_path / "copy"))


def problems(folder: Path) -> dict[str, str]:
    return {part.kind: part.problem for part in inspect(folder) if part.problem}


def test_seeded_weights_are_complete(seeded: Path) -> None:
    parts = inspect(seeded)
    assert problems(seeded) == {}
    assert all(part.detail for part in parts)
    assert {part.path.name for part in parts} >= {"Step-Audio-Chat", "CosyVoice-300M-25Hz-Music"}


def test_one_checkpoint_can_be_looked_at_by_itself(seeded: Path) -> None:
    kinds = [part.kind for part in inspect(seeded / "Step-Audio-Chat")]
    assert kinds == ["Step-1 language model", "text tokenizer"]


def test_every_damage_names_itself_and_hides_no_other(copy: Path) -> None:
    with (copy / "Step-Audio-Chat/model.safetensors").open("r+b") as file:
        file.truncate(1_000_000)
    (copy / "Step-Audio-TTS-3B/CosyVoice-300M-25Hz/hift.pt").unlink()
    (copy / "Step-Audio-Tokenizer/speech_tokenizer_v1.onnx").write_bytes(b"rubbish")
    found = problems(copy)
    assert "is truncated" in found["Step-1 language model"]
    assert "hift.pt: no such file" in found["vocoder"]
    assert "speech_tokenizer_v1.onnx" in found["semantic tokenizer"]
    assert len(found) == 3


def test_what_the_services_refuse_at_their_start_is_a_problem(copy: Path) -> None:
    speech = copy / "Step-Audio-TTS-3B"
    (speech / "generation_config.json").write_text("{")
    recording = speech / "speakers/TingtingRAP_prompt.wav"
    recording.write_bytes(recording.read_bytes()[:-100])
    other = copy / "Step-Audio-Tokenizer/speech_tokenizer_v1.onnx"
    shutil.copy(other, speech / "CosyVoice-300M-25Hz/campplus.onnx")
    with (copy / "Step-Audio-Chat/model.safetensors").open("ab") as file:
        file.write(b"xx")
    found = {(part.path.name, part.kind): part.problem for part in inspect(copy) if part.problem}
    assert "generation_config.json" in found["Step-Audio-TTS-3B", "Step-1 language model"]
    assert "TingtingRAP_prompt.wav" in found["speakers", "voices"]
    assert "2 bytes follow" in found["Step-Audio-Chat", "Step-1 language model"]
    embedding = found["CosyVoice-300M-25Hz", "speaker embedding"]
    assert "campplus.onnx is another network" in embedding
    assert len(found) == 4


def test_an_empty_recording_is_a_problem(copy: Path) -> None:
    (copy / "Step-Audio-TTS-3B/speakers/Alice_prompt.wav").write_bytes(b"")
    [problem] = problems(copy / "Step-Audio-TTS-3B").values()
    assert "Alice_prompt.wav cannot become a voice: the recording is empty" in problem


def test_a_checkpoint_that_is_not_there_is_a_problem(copy: Path) -> None:
    shutil.rmtree(copy / "Step-Audio-TTS-3B")
    assert problems(copy) == {"checkpoint": "the folder is missing"}


def test_a_folder_of_something_else_says_so(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="holds neither") as caught:
        inspect(tmp_path)
    assert caught.value.reason == "WEIGHTS_UNKNOWN"
