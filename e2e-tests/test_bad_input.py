"""Wrong input through the command: one line, a reason, a status; and the next request works."""

import io

import numpy as np
import pytest
import soundfile
from constellation import QUESTION

pytestmark = pytest.mark.e2e


def wav(samples, rate=16000):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture
def inputs(tmp_path):
    question = QUESTION.read_bytes()
    files = {
        "empty.wav": b"",
        "text.wav": b"this is not audio at all",
        "headless.wav": wav(np.zeros(0, np.int16)),
        "bridge.txt": "é".encode("latin-1"),
        "low.wav": wav(np.ones(3000, np.int16), 4000),
        "long.wav": wav(np.ones(16000 * 90, np.int16)),
        "cut.wav": question[: len(question) // 2],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["ask", "missing.wav"], 2),
        (["ask", "empty.wav"], 2),
        (["ask", "text.wav"], 2),
        (["ask", "headless.wav"], 2),
        (["ask", "bridge.txt"], 2),
        (["ask", "low.wav"], 4),
        (["ask", "long.wav"], 4),
        (["ask", "--text", ""], 4),
        (["ask", "--text", "word " * 20_000], 4),
        (["ask", "--text", "x", "--voice", "nobody"], 4),
        (["ask", "--text", "x", "--session", "tenants/default/sessions/gone"], 4),
        (["ask", "--text", "x", "--session", "no session name"], 4),
        (["ask", "--text", "x", "--temperature", "99"], 4),
        (["say", "", "-o", "o.wav"], 4),
        (["say", "x", "-o", "o.wav", "--voice", "nobody"], 4),
        (["say", "x", "-o", "o.wav", "--style", "no-such-tag", "--strict-tags"], 4),
        (["transcribe", "low.wav"], 4),
        (["voices", "delete", "nobody"], 4),
        (["voices", "clone", "bad name!", str(QUESTION), "--text", "x", "--consent", "y"], 4),
        (["voices", "clone", "v", str(QUESTION), "--text", "x", "--consent", ""], 4),
        (["ask", "--text", "x", "--timeout", "0.001"], 4),
        (["ask", "--text", "x", "--address", "127.0.0.1:1"], 3),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else str(value),
)
def test_bad_input_is_one_line_with_a_reason(constellation, inputs, monkeypatch, arguments, status):
    monkeypatch.chdir(inputs)
    done = constellation.parley(*arguments)
    assert done.status == status, done.err
    assert done.out == ""
    line = done.err.strip()
    assert line.startswith("error: ")
    assert line.endswith("]")
    assert "\n" not in line
    assert "Traceback" not in line
    assert not (inputs / "o.wav").exists()


def test_a_truncated_recording_is_answered_or_refused_and_never_breaks_anything(
    constellation, inputs
):
    done = constellation.parley("ask", inputs / "cut.wav", "--text-only", "--json")
    assert done.status in (0, 4), done.err
    assert "Traceback" not in done.err


def test_after_all_that_a_question_is_answered(constellation):
    assert constellation.parley("ask", QUESTION, "--text-only", "--json").status == 0
