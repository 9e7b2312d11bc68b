"""The vocoder inside Triton Inference Server: the same answers, and it comes back when killed."""

import os
import signal

import pytest
from constellation import QUESTION, Constellation, until

pytestmark = pytest.mark.e2e

ASK = ("ask", QUESTION, "--temperature", 0, "--seed", 5, "--max-tokens", 12, "--json")


@pytest.fixture(scope="module")
def triton(processes, tmp_path_factory):
    made = Constellation(tmp_path_factory.mktemp("triton") / "state", {})
    up = made.parley("up", "--vocoder", "triton", "--weights", processes.status_file()["weights"])
    assert up.status == 0, up.err
    yield made
    assert made.parley("down").status == 0


def test_tokens_and_sound_are_those_of_the_vocoder_in_its_own_process(processes, triton, tmp_path):
    files = [tmp_path / "torch.wav", tmp_path / "triton.wav"]
    alone, hosted = (
        made.parley(*ASK, "-o", file) for made, file in zip((processes, triton), files, strict=True)
    )
    assert alone.status == 0, alone.err
    assert hosted.status == 0, hosted.err
    assert hosted.json["answer"] == alone.json["answer"]
    assert hosted.json["tokens"]["answer_audio"] == alone.json["tokens"]["answer_audio"] > 0
    assert files[1].read_bytes() == files[0].read_bytes()


def test_a_killed_triton_costs_typed_errors_until_it_is_back(triton):
    before = triton.status_file()["services"]
    os.kill(before["triton"]["process"]["pid"], signal.SIGKILL)
    ended = triton.parley(*ASK)
    assert (ended.status, ended.err.count("\n")) == (4, 1), ended.err
    assert ended.err.endswith("[STAGE_LOST]\n")
    until(lambda: triton.parley(*ASK).status == 0, 60, "an answer")
    after = triton.status_file()["services"]
    assert after["triton"]["restarts"] == before["triton"]["restarts"] + 1
    assert after["triton"]["address"] == before["triton"]["address"]
    for name in set(after) - {"triton"}:
        assert after[name]["process"] == before[name]["process"]
