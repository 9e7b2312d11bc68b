"""The agreement of streams with recordings, on seeded weights."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from parley_evals import semantic_agreement
from parley_evals.semantic_agreement import agreement, main, without_beginning
from parley_tokenizer.seeded import write_seeded
from parley_tokenizer.segments import SegmentPlan
from parley_tokenizer.semantic import SemanticTokenizer

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_seeded(folder)
    return folder


def test_one_window_over_everything_agrees_wholly_and_small_ones_do_not(folder: Path) -> None:
    tokenizer = SemanticTokenizer.load(folder)
    wave = (np.random.default_rng(0).standard_normal(40_000) * 0.1).astype(np.float32)
    recordings = [(wave, tokenizer.encode(wave))]
    whole = agreement(tokenizer, recordings, SegmentPlan(2.8, 0.0, 0.0))
    assert (whole.share, whole.codes) == (1.0, 63)
    assert agreement(tokenizer, recordings, SegmentPlan(0.24, 0.0, 0.0)).share < 1


def test_without_a_cut_nothing_differs(folder: Path) -> None:
    tokenizer = SemanticTokenizer.load(folder)
    wave = (np.random.default_rng(1).standard_normal(64_000) * 0.1).astype(np.float32)
    recordings = [(wave, tokenizer.encode(wave))]
    assert without_beginning(tokenizer, recordings, 0.0) == (25, 25)
    same, codes = without_beginning(tokenizer, recordings, 0.4)
    assert codes == 15
    assert same < codes


def test_a_stream_of_another_length_is_an_error(folder: Path) -> None:
    tokenizer = SemanticTokenizer.load(folder)
    wave = np.zeros(16_000, np.float32)
    with pytest.raises(ValueError, match="25 codes in a stream, 1 in its recording"):
        agreement(tokenizer, [(wave, [0])], SegmentPlan())


def test_the_command_writes_a_row_for_every_plan(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(semantic_agreement, "SEGMENTS_S", (0.96,))
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 9000), 8000)
    arguments = ["--weights", str(folder), "--audio", str(tmp_path / "noise.wav")]
    assert main([*arguments, "--csv", str(tmp_path / "rows.csv")]) == 0
    assert "1.1 s of audio" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    plans = len(semantic_agreement.LEFT_S) * len(semantic_agreement.RIGHT_S)
    assert len(rows) == plans
    assert all(0 <= int(row["same"]) <= int(row["codes"]) for row in rows)
