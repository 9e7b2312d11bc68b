"""Front end and encoder against the reference's numbers (golden 03_linguistic_tokenizer)."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from paraformer.checkpoint import open_checkpoint
from paraformer.encoder import SanmEncoder
from paraformer.frontend import Frontend

GOLDEN = Path(os.environ.get("PARLEY_GOLDEN", Path(__file__).parents[4] / "shared/golden"))
CASE = GOLDEN / "03_linguistic_tokenizer"

pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not CASE.is_dir(), reason=f"{CASE} is not here"),
]


@pytest.fixture(scope="module")
def models() -> tuple[Frontend, SanmEncoder]:
    checkpoint = open_checkpoint(next((CASE / "checkpoint/dengcunqin").iterdir()))
    encoder = SanmEncoder(checkpoint.config.encoder).eval()
    checkpoint.load(encoder, "encoder.")
    return Frontend(checkpoint.config.frontend, checkpoint.cmvn), encoder


@pytest.mark.parametrize(
    "name", ["tingting", "lixueqin", "exact_multiple", "plus_399", "one_chunk_minus1", "odd"]
)
def test_features_and_frames_equal_the_reference(
    models: tuple[Frontend, SanmEncoder], name: str
) -> None:
    frontend, encoder = models
    inputs, outputs = np.load(CASE / "inputs.npz"), np.load(CASE / "outputs.npz")
    tolerance = json.loads((CASE / "case.json").read_text())["tolerance"]
    features = frontend.encode(torch.from_numpy(inputs[f"{name}.audio16k"][0]))
    wanted = torch.from_numpy(outputs[f"{name}.offline.feats"])
    torch.testing.assert_close(features, wanted, atol=tolerance["feats_atol"], rtol=0)
    torch.testing.assert_close(
        encoder.encode(wanted),
        torch.from_numpy(outputs[f"{name}.offline.enc_kept"]),
        atol=tolerance["enc_atol_from_given_feats"],
        rtol=0,
    )


def test_frame_counts_equal_the_reference_at_every_scanned_length(
    models: tuple[Frontend, SanmEncoder],
) -> None:
    rows = json.loads((CASE / "length_scan.json").read_text())["rows"]
    audio = torch.zeros(max(samples for samples, *_ in rows))
    counts = [len(models[0].encode(audio[:samples])) for samples, *_ in rows]
    assert counts == [count for _, count, *_ in rows]
