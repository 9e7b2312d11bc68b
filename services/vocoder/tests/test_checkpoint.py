import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from parley_vocoder.checkpoint import CheckpointError, load_into, read_tensors
from parley_vocoder.config import load_config
from parley_vocoder.contract import FlowModel
from parley_vocoder.engine.flow.model import Flow
from parley_vocoder.engine.hift.model import Hift
from torch import Tensor

pytestmark = pytest.mark.unit

Change = Callable[[dict[str, Tensor]], object]


@pytest.fixture
def folder(weights: Path) -> Path:
    return weights / FlowModel.COMMON.value


def load_changed(folder: Path, tmp_path: Path, change: Change) -> Hift:
    tensors = torch.load(folder / "hift.pt", weights_only=True)
    change(tensors)
    torch.save(tensors, tmp_path / "hift.pt")
    hift = Hift(load_config(folder).hift)
    load_into(hift, tmp_path / "hift.pt")
    return hift


def reshape(tensors: dict[str, Tensor]) -> None:
    tensors["conv_pre.weight_v"] = tensors["conv_pre.weight_v"][:, :-1]


def shorten(tensors: dict[str, Tensor]) -> None:
    tensors["conv_pre.weight_v"] = tensors["conv_pre.weight_v"][:-1]


def flatten(tensors: dict[str, Tensor]) -> None:
    tensors["conv_pre.weight_v"] = torch.tensor(1.0)


def shorten_gain(tensors: dict[str, Tensor]) -> None:
    tensors["conv_pre.weight_g"] = tensors["conv_pre.weight_g"][:-1]


def stray_norm(tensors: dict[str, Tensor]) -> None:
    tensors.update({"stray.weight_g": torch.tensor(1.0), "stray.weight_v": torch.tensor(1.0)})


def as_integers(tensors: dict[str, Tensor]) -> None:
    tensors["conv_post.bias"] = tensors["conv_post.bias"].long()


def as_half(tensors: dict[str, Tensor]) -> None:
    tensors["conv_post.bias"] = tensors["conv_post.bias"].half()


def not_a_number(tensors: dict[str, Tensor]) -> None:
    tensors["f0_predictor.classifier.weight"][0, 0] = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("conv_pre.bias"), r"conv_pre\.bias: missing"),
        (lambda t: t.pop("conv_pre.weight_g"), r"conv_pre\.weight_g: missing"),
        (lambda t: t.pop("conv_pre.weight_v"), r"conv_pre\.weight_v: missing"),
        (lambda t: t.update(stray=torch.zeros(1)), r"stray: not part of this model"),
        (reshape, r": conv_pre\.weight_v: shape \[32, 79, 7\], expected \[32, 80, 7\]"),
        (shorten, r": conv_pre\.weight_v: shape \[31, 80, 7\], expected \[32, 80, 7\]"),
        (flatten, r": conv_pre\.weight_v: shape \[\], expected \[32, 80, 7\]"),
        (shorten_gain, r": conv_pre\.weight_g: shape \[31, 1, 1\], expected \[32, 1, 1\]"),
        (stray_norm, r": stray\.weight_v: not part of this model"),
        (as_integers, r"conv_post\.bias: dtype torch\.int64, expected torch\.float32"),
        (as_half, r"conv_post\.bias: dtype torch\.float16, expected torch\.float32"),
        (not_a_number, r"f0_predictor\.classifier\.weight: holds values that are not finite"),
    ],
)
def test_a_wrong_tensor_names_itself_in_one_line(
    folder: Path, tmp_path: Path, change: Change, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_changed(folder, tmp_path, change)
    assert "hift.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_both_weight_norm_styles_and_the_generator_prefix_load_the_same(
    folder: Path, tmp_path: Path
) -> None:
    def restyle(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            new = name.replace("weight_g", "parametrizations.weight.original0")
            new = new.replace("weight_v", "parametrizations.weight.original1")
            tensors[f"generator.{new}"] = tensors.pop(name)

    legacy = load_changed(folder, tmp_path, lambda tensors: None).state_dict()
    restyled = load_changed(folder, tmp_path, restyle).state_dict()
    assert all(torch.equal(legacy[name], restyled[name]) for name in legacy)


def test_a_truncated_file_names_itself(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "flow.pt"
    path.write_bytes((folder / "flow.pt").read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"flow\.pt: truncated or not a weights file"):
        load_into(Flow(load_config(folder).flow), path)
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: no such file"):
        load_into(Flow(load_config(folder).flow), tmp_path / "nowhere.pt")


def test_every_cut_of_a_legacy_file_names_it(tmp_path: Path) -> None:
    path = tmp_path / "flow.pt"
    tensors = {f"encoder.{at}": torch.randn(3, at + 1) for at in range(4)}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert read_tensors(path).keys() == tensors.keys()
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=r"flow\.pt: truncated or not a weights file"):
            read_tensors(path)


def test_code_in_a_pickle_does_not_run(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {canary}",)

    path = tmp_path / "flow.pt"
    path.write_bytes(pickle.dumps({"input_embedding.weight": Evil()}, protocol=2))
    with pytest.raises(CheckpointError):
        load_into(Flow(load_config(folder).flow), path)
    assert not canary.exists()
