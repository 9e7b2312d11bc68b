"""The golden runner: parity on the cases at hand, and that it cannot pass what is wrong."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from parley_evals.golden.__main__ import main
from parley_evals.golden.case import GoldenCase
from parley_evals.golden.runner import discover, run

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "evals" / "golden"
SHARED = Path(os.environ.get("PARLEY_GOLDEN", ROOT.parent / "shared" / "golden"))


def cases(root: Path) -> list[GoldenCase]:
    return discover(root) if root.is_dir() else []


@pytest.mark.golden
@pytest.mark.parametrize("case", cases(OWN) + cases(SHARED), ids=lambda case: str(case.folder.name))
def test_serving_code_computes_what_the_reference_computes(case: GoldenCase) -> None:
    checks = list(run(case))
    assert checks
    assert [check for check in checks if not check.passed] == []


@pytest.fixture
def merge_case(tmp_path: Path) -> Path:
    folder = tmp_path / "any name"
    folder.mkdir()
    what = ["tokenizer.py:StepAudioTokenizer.wav2token (codes injected)"]
    (folder / "case.json").write_text(json.dumps({"reference": {"what": what}}))
    row = {"vq02": [1, 2], "vq06": [3, 4, 5], "wav2token_ids": [65537, 65538, 66563, 66564, 66565]}
    text = "".join(f"<audio_{i - 65536}>" for i in row["wav2token_ids"])
    (folder / "cases.json").write_text(json.dumps([row | {"merge_token_str": text}]))
    return folder


@pytest.mark.unit
def test_a_right_case_of_any_name_passes(merge_case: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(merge_case.parent)]) == 0
    assert "2 passed, 0 failed" in capsys.readouterr().out


@pytest.mark.unit
def test_a_wrong_number_fails(merge_case: Path, capsys: pytest.CaptureFixture) -> None:
    rows = json.loads((merge_case / "cases.json").read_text())
    rows[0]["wav2token_ids"][3] += 1
    (merge_case / "cases.json").write_text(json.dumps(rows))
    assert main([str(merge_case)]) == 1
    assert "1 passed, 1 failed" in capsys.readouterr().out


@pytest.mark.unit
def test_an_output_that_nobody_compares_fails(merge_case: Path) -> None:
    np.savez(merge_case / "outputs.npz", extra=np.zeros(3))
    failed = [check for check in run(GoldenCase(merge_case)) if not check.passed]
    assert [check.quantity for check in failed] == ["extra: not compared"]


@pytest.mark.unit
def test_an_unknown_kind_fails(merge_case: Path) -> None:
    (merge_case / "case.json").write_text(json.dumps({"reference": {"what": ["something new"]}}))
    assert [check.passed for check in run(GoldenCase(merge_case))] == [False]


@pytest.mark.unit
def test_a_case_that_raises_fails(merge_case: Path) -> None:
    (merge_case / "cases.json").unlink()
    (check,) = run(GoldenCase(merge_case))
    assert not check.passed
    assert "FileNotFoundError" in check.quantity


@pytest.mark.unit
def test_shapes_that_differ_and_nan_fail(merge_case: Path) -> None:
    case = GoldenCase(merge_case)
    assert not case.close("shape", np.zeros(3), np.zeros(4), 1.0).passed
    assert not case.close("nan", np.array([np.nan]), np.zeros(1), 1.0).passed
    assert case.close("near", np.array([0.5]), np.zeros(1), 1.0).passed


@pytest.mark.unit
def test_a_folder_without_cases_is_a_usage_error(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert main([]) == 2
