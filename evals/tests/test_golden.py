"""The golden runner: parity on the cases at hand, and that it cannot pass what is wrong."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from parley_evals.golden.__main__ import main
from parley_evals.golden.case import CaseError, GoldenCase
from parley_evals.golden.chat_and_tts_prompts import _message
from parley_evals.golden.runner import discover, run
from safetensors.torch import load_file, save_file
from step1.chat_prompt import render

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "evals" / "golden"
SHARED = Path(os.environ.get("PARLEY_GOLDEN", ROOT.parent / "shared" / "golden"))


# One bin 95 dB below its frame, where float64 is as far from the reference as this processor is.
MISSED = (
    {("07_prompt_features", "tingting.mel22k")}
    if torch.backends.cpu.get_cpu_capability() != "AVX512"
    else set()
)


def cases(root: Path) -> list[GoldenCase]:
    return discover(root) if root.is_dir() else []


@pytest.mark.golden
@pytest.mark.parametrize("case", cases(OWN) + cases(SHARED), ids=lambda case: str(case.folder.name))
def test_serving_code_computes_what_the_reference_computes(case: GoldenCase) -> None:
    checks = list(run(case))
    assert checks
    missed = {(check.case, check.quantity) for check in checks if not check.passed}
    assert missed <= MISSED
    if missed:
        pytest.xfail(f"the reference's own rounding, on this processor: {sorted(missed)}")


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
@pytest.mark.parametrize(
    ("entries", "rendered"),
    [
        ([("user", None)], "<|BOT|>human\n<|BOT|>assistant\n"),
        (
            [("user", "hi"), ("user", None)],
            "<|BOT|>human\nhi<|EOT|><|BOT|>human\n<|BOT|>assistant\n",
        ),
        (
            [("system", "x"), ("assistant", None), ("user", "q")],
            "<|BOT|>system\nx<|EOT|><|BOT|>assistant\n<|BOT|>human\nq<|EOT|><|BOT|>assistant\n",
        ),
        (
            [("assistant", None), ("assistant", None)],
            "<|BOT|>assistant\n<|BOT|>assistant\n",
        ),
    ],
)
def test_a_chat_message_without_content_opens_its_turn_wherever_it_stands(
    entries: list[tuple[str, str | None]], rendered: str
) -> None:
    messages = [{"role": role, "content": content} for role, content in entries]
    assert render([_message(entry) for entry in messages]) == rendered


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of the repository's cases, to damage."""
    return Path(shutil.copytree(OWN, tmp_path / "golden", ignore=shutil.ignore_patterns("recipe")))


def failures(folder: Path) -> list[str]:
    return [check.quantity for check in run(GoldenCase(folder)) if not check.passed]


@pytest.mark.golden
def test_a_checkpoint_in_shards_passes(own: Path) -> None:
    checkpoint = own / "step1_lm" / "checkpoint"
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    places = {}
    for number in range(3):
        shard = f"model-0000{number + 1}-of-00003.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[number::3]}
        save_file(part, checkpoint / shard)
        places |= dict.fromkeys(part, shard)
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert failures(own / "step1_lm") == []
    (checkpoint / "model-00002-of-00003.safetensors").unlink()
    (told,) = failures(own / "step1_lm")
    assert "model-00002-of-00003.safetensors: missing" in told


@pytest.mark.golden
def test_both_weight_norm_styles_pass(own: Path) -> None:
    file = own / "decoder" / "hift.pt"
    styles = {"parametrizations.weight.original0": "weight_g"}
    styles["parametrizations.weight.original1"] = "weight_v"
    stored = torch.load(file, weights_only=True)
    for new, legacy in styles.items():
        stored = {name.replace(new, legacy): tensor for name, tensor in stored.items()}
    assert any(name.endswith("weight_g") for name in stored)
    torch.save(stored, file)
    assert failures(own / "hift") == []


@pytest.mark.golden
def test_a_case_of_stereo_signals_with_dots_in_their_names_passes(own: Path) -> None:
    for kind in ("waveform", "linguistic_tokenizer"):
        folder = own / kind
        text = (folder / "case.json").read_text()
        old, new = ("stereo", "stereo_0.25s") if kind == "waveform" else ("speech", "speech_1.5s")
        (folder / "case.json").write_text(text.replace(f'"{old}"', f'"{new}"'))
        for name in ("inputs", "outputs"):
            with np.load(folder / f"{name}.npz") as arrays:
                renamed = {key.replace(f"{old}.", f"{new}."): arrays[key] for key in arrays.files}
            np.savez(folder / f"{name}.npz", **renamed)
        if kind != "waveform":
            sessions = (folder / "streams.json").read_text()
            (folder / "streams.json").write_text(sessions.replace(f'"{old}"', f'"{new}"'))
        assert failures(folder) == []


@pytest.mark.golden
@pytest.mark.parametrize(
    ("case", "damage", "wanted"),
    [
        ("hift", "decoder/hift.pt", "hift.pt: no such file"),
        ("flow", "decoder/cosyvoice.yaml", "cosyvoice.yaml"),
        ("token_to_wav", "decoder", "the checkpoint ../decoder is missing"),
        ("semantic_tokenizer", "semantic_tokenizer/checkpoint", "no checkpoint"),
        ("step1_lm", "step1_lm/checkpoint/config.json", "config.json does not exist"),
        ("linguistic_tokenizer", "linguistic_tokenizer/streams.json", "streams.json"),
        ("waveform", "waveform/outputs.npz", "outputs.npz is missing"),
        ("flow", "flow/outputs.npz", "outputs.npz"),
        ("hift", "hift/inputs.npz", "not compared"),
        ("hift", "hift/case.json", "case.json"),
    ],
)
def test_a_missing_file_is_a_row_that_names_it(
    own: Path, case: str, damage: str, wanted: str, capfd: pytest.CaptureFixture
) -> None:
    path = own / damage
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    told = failures(own / case)
    assert told
    assert re.search(wanted, told[0])
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.golden
@pytest.mark.parametrize(
    ("case", "damage"),
    [
        ("hift", "decoder/hift.pt"),
        ("flow", "flow/inputs.npz"),
        ("semantic_tokenizer", "semantic_tokenizer/checkpoint/speech_tokenizer_v1.onnx"),
        ("linguistic_tokenizer", "linguistic_tokenizer/checkpoint/linguistic_tokenizer.npy"),
        ("step1_lm", "step1_lm/checkpoint/model.safetensors"),
        ("token_merge", "token_merge/case.json"),
    ],
)
def test_a_truncated_file_is_one_row_that_names_it(own: Path, case: str, damage: str) -> None:
    path = own / damage
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (told,) = failures(own / case)
    assert path.name in told


@pytest.mark.golden
def test_the_checkpoint_of_another_case_is_a_row_that_names_a_tensor(own: Path) -> None:
    stored = torch.load(own / "decoder" / "flow.pt", weights_only=True)
    torch.save(stored, own / "decoder" / "hift.pt")
    (told,) = failures(own / "hift")
    assert "hift.pt: conv_post.bias: missing" in told


@pytest.mark.unit
def test_shapes_that_differ_and_nan_fail(merge_case: Path) -> None:
    case = GoldenCase(merge_case)
    assert not case.close("shape", np.zeros(3), np.zeros(4), 1.0).passed
    assert not case.close("nan", np.array([np.nan]), np.zeros(1), 1.0).passed
    assert case.close("near", np.array([0.5]), np.zeros(1), 1.0).passed
    assert not case.close("complex", np.zeros(1), np.array([5j]), 1.0).passed


@pytest.mark.golden
@pytest.mark.parametrize(
    ("kind", "key"), [("waveform", ".resample22050"), ("step1_lm", "layer0_attn_bias")]
)
def test_an_output_without_values_fails(own: Path, kind: str, key: str) -> None:
    file = own / kind / "outputs.npz"
    with np.load(file) as arrays:
        stored = {name: arrays[name] for name in arrays.files}
    (name, *_) = (name for name in stored if key in name)
    stored[name] = stored[name][..., :0]
    np.savez(file, **stored)
    (told,) = failures(own / kind)
    assert told.startswith(name)


@pytest.mark.golden
@pytest.mark.parametrize(
    "table", ["cases.json", "streams.json", "tokenize_cases.json", "chat_template.json"]
)
def test_a_table_without_rows_fails(own: Path, table: str) -> None:
    folder = next(own.rglob(table)).parent
    (folder / table).write_text("[]")
    assert f"CaseError: {table} holds no rows" in failures(folder)


@pytest.mark.unit
@pytest.mark.parametrize("told", ["Infinity", "1e999", "NaN", "-1", "true", "null", '"exact"'])
def test_a_tolerance_that_is_no_bound_fails(merge_case: Path, told: str) -> None:
    (merge_case / "case.json").write_text(f'{{"tolerance": {{"atol": {told}}}}}')
    with pytest.raises(CaseError, match="tolerance atol as"):
        GoldenCase(merge_case).tolerance("atol")


@pytest.mark.golden
@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("flow", "one_token.mel"),
        ("linguistic_tokenizer", "speech.offline.codes"),
        ("semantic_tokenizer", "speech.ids"),
        ("chat_and_tts_prompts", ".scores_out"),
        ("hift", "."),
    ],
)
def test_a_main_result_that_is_not_there_fails(own: Path, kind: str, gone: str) -> None:
    file = own / kind / "outputs.npz"
    with np.load(file) as arrays:
        names = list(arrays.files)
        if gone == ".":  # all that is told of one input
            gone = names[0].partition(".")[0] + "."
        lost = [name for name in names if name.startswith(gone) or name.endswith(gone)]
        assert lost
        lost = lost if gone.endswith(".") else lost[:1]
        kept = {name: arrays[name] for name in names if name not in lost}
    np.savez(file, **kept)
    assert failures(own / kind)


@pytest.mark.unit
def test_linked_cases_and_those_without_a_readable_case_json_are_not_passed_over(
    merge_case: Path, tmp_path: Path
) -> None:
    root = tmp_path / "cases"
    (root / "broken").mkdir(parents=True)
    (root / "broken" / "case.json").symlink_to(tmp_path / "nowhere")
    (root / "linked").symlink_to(merge_case)
    (root / "loop").symlink_to(root)
    found = {case.folder.name: [check.passed for check in run(case)] for case in discover(root)}
    assert found == {"broken": [False], "linked": [True, True]}


@pytest.mark.unit
def test_rows_of_cases_of_one_name_and_of_names_like_markup_tell_them_apart(
    merge_case: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one/same", "two/same", "[bold]x"):
        shutil.copytree(merge_case, tmp_path / "cases" / name)
    assert main([str(tmp_path / "cases")]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("one/same", "two/same", "[bold]x"))
    monkeypatch.chdir(merge_case)
    assert main(["."]) == 0
    assert "any name" in capsys.readouterr().out


@pytest.mark.unit
def test_a_folder_without_cases_is_a_usage_error(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert main([]) == 2
