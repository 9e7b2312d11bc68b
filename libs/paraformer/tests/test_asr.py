"""Decoding to text: equal to the reference, and the same for any cut into packets."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paraformer.asr import RECOGNITION_CHUNK, Recognizer
from paraformer.checkpoint import CheckpointError
from paraformer.seeded import write_seeded

sys.path.insert(0, str(Path(__file__).parent))
import parity_checkpoint

pytestmark = pytest.mark.unit

DATA = np.load(Path(__file__).parent / "data/funasr.npz")
CASES = sorted({key.split(".")[0] for key in DATA if key != "shapes"}, key=int)
EMPTY = "7"
"""Too short for one frame: the reference decodes its own padding, this package says nothing."""


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    shapes = {}
    for entry in DATA["shapes"]:
        name, _, sizes = str(entry).partition(":")
        shapes[name] = tuple(int(size) for size in sizes.split(","))
    parity_checkpoint.write(folder, shapes)
    return Recognizer.load(folder)


def samples(case):
    return DATA[f"{case}.pcm"].astype(np.float32) / 32768


@pytest.mark.golden
@pytest.mark.parametrize("case", [case for case in CASES if case != EMPTY])
def test_ids_and_text_equal_the_reference(recognizer, case):
    found = recognizer.transcribe(samples(case))
    unknown = parity_checkpoint.TOKENS.index("<unk>")
    assert list(found.tokens) == [i for i in DATA[f"{case}.ids"].tolist() if i != unknown]
    assert found.text == str(DATA[f"{case}.text"])
    assert found.unstable == ""


@pytest.mark.golden
def test_frames_and_logits_equal_the_reference_from_given_features(recognizer, monkeypatch):
    features = torch.from_numpy(DATA["0.features"])
    seen = {"encoder": [], "logits": []}
    parts = iter(torch.split(features, RECOGNITION_CHUNK.frames))
    monkeypatch.setattr(recognizer.frontend, "forward_block", lambda *_: next(parts)[None])
    monkeypatch.setattr(recognizer.frontend, "finish", lambda *_: next(parts))
    for key, module in (("encoder", recognizer.encoder), ("logits", recognizer.decoder)):
        monkeypatch.setattr(module, "forward_chunk", _spy(module.forward_chunk, seen[key]))
    recognizer.transcribe(samples("0"))
    for key, tolerance in (("encoder", 1e-4), ("logits", 1e-3)):
        found = torch.cat([part.reshape(-1, part.shape[-1]) for part in seen[key]])
        wanted = torch.from_numpy(DATA[f"0.{key}"])
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0)


def _spy(inner, seen):
    def outer(*args, **kwargs):
        result = inner(*args, **kwargs)
        seen.append(result.clone())
        return result

    return outer


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 20123), max_size=6))
def test_any_cut_into_packets_gives_the_same_text_and_stable_text_never_changes(recognizer, cuts):
    audio = samples("1")
    stream = recognizer.stream()
    stable = ""
    for packet in np.split(audio, sorted(cuts)):
        before = len(stream.transcript().tokens)
        added = stream.accept(packet)
        now = stream.transcript()
        assert added == (len(now.tokens) > before)
        assert now.stable.startswith(stable)
        stable = now.stable
    final = stream.finish()
    assert final == recognizer.transcribe(audio)
    assert final.stable.startswith(stable)
    assert stream.finish() == final


def test_words_lie_in_the_recording_in_order(recognizer):
    found = recognizer.transcribe(samples("0"))
    assert "".join(word.text for word in found.words) == found.text.replace(" ", "")
    times = [time for word in found.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= found.duration == 33600 / 16000


@pytest.mark.parametrize("length", [0, 1, 959])
def test_audio_below_one_frame_has_no_text(recognizer, length):
    found = recognizer.transcribe(np.zeros(length, np.float32))
    assert (found.text, found.tokens, found.words) == ("", (), ())


def test_a_finished_stream_takes_no_more(recognizer):
    stream = recognizer.stream()
    stream.finish()
    with pytest.raises(ValueError, match="finished"):
        stream.accept(np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="one dimension"):
        recognizer.stream().accept(np.zeros((2, 2), np.float32))


def test_streams_do_not_mix(recognizer):
    one, two = recognizer.stream(), recognizer.stream()
    a, b = samples("0"), samples("1")
    for i in range(0, len(a), 4000):
        one.accept(a[i : i + 4000])
        two.accept(b[i : i + 4000])
    assert one.finish() == recognizer.transcribe(a)
    assert two.finish() == recognizer.transcribe(b)


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("config.yaml", "CifPredictorV2", "CifPredictorV3", "predictor"),
        ("config.yaml", "att_layer_num: 3", "att_layer_num: 2", "att_layer_num"),
        ("config.yaml", "sanm_shfit: 5", "sanm_shfit: 0", "sanm_shfit"),
        ("tokens.json", ', "<unk>"', "", "output_layer"),
        ("tokens.json", "]", "", "token list"),
    ],
)
def test_a_folder_that_cannot_be_decoded_names_the_cause(
    recognizer, tmp_path, file, old, new, named
):
    shapes = {}
    for entry in DATA["shapes"]:
        name, _, sizes = str(entry).partition(":")
        shapes[name] = tuple(int(size) for size in sizes.split(","))
    parity_checkpoint.write(tmp_path, shapes)
    text = (tmp_path / file).read_text("utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new), "utf-8")
    with pytest.raises(CheckpointError, match=named) as error:
        Recognizer.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_seeded_folder_decodes_at_the_pace_of_speech(tmp_path):
    write_seeded(tmp_path, seed=3)
    noise = np.random.default_rng(0).standard_normal(16000 * 5).astype(np.float32) * 0.1
    found = Recognizer.load(tmp_path).transcribe(noise)
    assert 1 <= len(found.tokens) / found.duration <= 8
    assert found.text == "".join(word.text for word in found.words)
