"""A damaged checkpoint says in one line what is wrong with it."""

from pathlib import Path

import pytest
import torch
from paraformer.checkpoint import (
    CheckpointError,
    ParaformerCheckpoint,
    open_checkpoint,
    read_tensors,
)
from paraformer.encoder import SanmEncoder
from paraformer.seeded import write_seeded

pytestmark = pytest.mark.unit

NORM = "encoder.encoders.0.norm1.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_seeded(tmp_path)
    return tmp_path


def load(folder: Path) -> ParaformerCheckpoint:
    checkpoint = open_checkpoint(folder)
    checkpoint.load(SanmEncoder(checkpoint.config.encoder), "encoder.")
    return checkpoint


def fails(folder: Path, *wanted: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for each in wanted:
        assert each in message


@pytest.mark.parametrize("wrap", [False, True])
def test_wrapped_and_prefixed_weights_load(folder: Path, wrap: bool) -> None:
    tensors = {f"module.{name}": tensor for name, tensor in torch.load(folder / "model.pt").items()}
    torch.save({"state_dict": tensors, "epoch": 3} if wrap else tensors, folder / "model.pt")
    load(folder)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda tensors: tensors.pop(NORM), "is missing"),
        (lambda tensors: tensors.update({NORM: torch.ones(7)}), "shape [7], [64] expected"),
        (
            lambda tensors: tensors.update({NORM: torch.ones(64, dtype=torch.int8)}),
            "dtype torch.int8",
        ),
        (lambda tensors: tensors.update({NORM: torch.full((64,), torch.nan)}), "not finite"),
        (lambda tensors: tensors.update({NORM: "text"}), "is str"),
    ],
)
def test_a_bad_tensor_names_itself(folder: Path, change, wanted: str) -> None:
    tensors = torch.load(folder / "model.pt")
    change(tensors)
    torch.save(tensors, folder / "model.pt")
    fails(folder, NORM, wanted)


def test_a_truncated_file_is_named(folder: Path) -> None:
    content = (folder / "model.pt").read_bytes()
    (folder / "model.pt").write_bytes(content[: len(content) // 2])
    fails(folder, "model.pt", "truncated")


@pytest.mark.parametrize("content", [b"hello", b"", b"Not Found", b'{"error": "x"}'])
def test_what_a_failed_download_leaves_is_named(folder: Path, content: bytes) -> None:
    (folder / "model.pt").write_bytes(content)
    fails(folder, "model.pt is truncated or not a checkpoint of tensors: ")


def test_every_cut_of_a_legacy_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "legacy.pt"
    tensors = {f"encoder.{at}": torch.randn(3, at + 1) for at in range(4)}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert read_tensors(path).keys() == tensors.keys()
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=r"legacy\.pt is truncated"):
            read_tensors(path)


class Hostile:
    def __reduce__(self):
        return (print, ("must not run",))


def test_a_pickle_of_code_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weights": Hostile()}, folder / "model.pt")
    fails(folder, "model.pt")
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["configuration.json", "config.yaml", "am.mvn", "model.pt"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    fails(folder, name, "missing")


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("sanm_shfit: 0", "sanm_shfit: 2", "sanm_shfit is 2"),
        ("num_blocks: 3", "num_blocks: many", "num_blocks"),
        ("  lfr_n: 6\n", "", "lfr_n is missing"),
    ],
)
def test_an_option_that_is_not_implemented_is_refused(
    folder: Path, old: str, new: str, wanted: str
) -> None:
    path = folder / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    fails(folder, wanted)


def test_truncated_statistics_are_named(folder: Path) -> None:
    path = folder / "am.mvn"
    path.write_text(path.read_text()[:-1000])
    fails(folder, "am.mvn", "Rescale")
