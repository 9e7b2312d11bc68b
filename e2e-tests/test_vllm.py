"""Both language models on vLLM, everything else as ever: the answers are torch's, token for token.

Started by `make test-vllm`, from the environment of the other services: `parley up` finds
``.venv-vllm`` by itself, and without it this fails.
"""

import pytest
from constellation import DATA, Constellation

pytestmark = pytest.mark.vllm

QUESTIONS = [DATA / f"{name}.wav" for name in ("question", "sum", "weather")]


@pytest.fixture(scope="module")
def vllm(processes, tmp_path_factory):
    made = Constellation(tmp_path_factory.mktemp("vllm") / "state", {})
    weights = processes.status_file()["weights"]
    up = made.parley("up", "--engine", "vllm", "--weights", weights, "--timeout", 500, timeout=520)
    assert up.status == 0, up.err
    yield made
    assert made.parley("down").status == 0


def asked(made: Constellation, question: object, *more: object) -> dict[str, object]:
    done = made.parley(
        "ask", question, "--temperature", 0, "--seed", 5, "--max-tokens", 12, "--json", *more
    )
    assert done.status == 0, done.err
    return {"answer": done.json["answer"], "tokens": done.json["tokens"]}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda path: path.stem)
def test_greedy_tokens_and_sound_are_those_of_torch(processes, vllm, question, tmp_path):
    sounds = [tmp_path / "torch.wav", tmp_path / "vllm.wav"]
    torch, other = (
        asked(made, question, "-o", sound)
        for made, sound in zip((processes, vllm), sounds, strict=True)
    )
    assert other["answer"] == torch["answer"]
    # How much of a prompt was cached is each engine's own affair.
    for each in (torch, other):
        each["tokens"].pop("cached")
    assert other["tokens"] == torch["tokens"]
    assert other["tokens"]["answer_audio"] > 0
    # The vocoder is deterministic: equal sound means equal audio tokens.
    assert sounds[1].read_bytes() == sounds[0].read_bytes()
