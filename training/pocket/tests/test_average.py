"""The mean of checkpoints is the mean of their weights, and of one model only."""

from pathlib import Path

import pytest
import torch
from average import WEIGHTS, average
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.unit


def _checkpoint(folder: Path, value: float, size: int = 2) -> Path:
    folder.mkdir()
    save_file({"a": torch.full((size,), value, dtype=torch.bfloat16)}, folder / WEIGHTS)
    (folder / "config.json").write_text(folder.name)
    (folder / "speakers").mkdir()
    (folder / "speakers" / "voice.wav").write_text(folder.name)
    return folder


def test_weights_are_averaged_and_the_rest_is_the_first_folders(tmp_path: Path) -> None:
    folders = [_checkpoint(tmp_path / str(n), value) for n, value in enumerate((1.0, 2.0, 6.0))]
    out = _checkpoint(tmp_path / "out", 9.0)
    average(folders, out)
    (mean,) = load_file(out / WEIGHTS).values()
    assert mean.dtype is torch.bfloat16
    assert mean.tolist() == [3.0, 3.0]
    assert (out / "config.json").read_text() == "0"
    assert (out / "speakers" / "voice.wav").read_text() == "0"


def test_the_first_may_be_written_over(tmp_path: Path) -> None:
    first, other = _checkpoint(tmp_path / "a", 1.0), _checkpoint(tmp_path / "b", 3.0)
    average([first, other], first)
    assert load_file(first / WEIGHTS)["a"].tolist() == [2.0, 2.0]


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    first, other = _checkpoint(tmp_path / "a", 1.0), _checkpoint(tmp_path / "b", 1.0, size=3)
    with pytest.raises(ValueError, match=r"/b is no checkpoint of the model in .*/a"):
        average([first, other], tmp_path / "out")


def test_files_of_the_decoder_are_averaged_too(tmp_path: Path) -> None:
    files = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for value, file in zip((1.0, 4.0), files, strict=True):
        torch.save({"a": torch.full((2,), value, dtype=torch.float16)}, file)
    average(files, files[1])
    mean = torch.load(files[1], weights_only=True)["a"]
    assert (mean.dtype, mean.tolist()) == (torch.float16, [2.5, 2.5])
