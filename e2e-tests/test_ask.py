"""A spoken question in, a spoken answer out."""

import wave

import numpy as np
import pytest
from constellation import QUESTION, eventually, until

pytestmark = pytest.mark.e2e

# One group of five dual-code tokens lasts 120 ms.
SECONDS_PER_TOKEN = 0.12 / 5


@pytest.fixture(scope="module")
def asked(constellation, tmp_path_factory):
    """One question, asked by the command with everything it can write."""
    folder = tmp_path_factory.mktemp("ask")
    answer, timeline = folder / "answer.wav", folder / "turn.html"
    done = constellation.parley(
        "ask", QUESTION, "-o", answer, "--timeline", timeline, "--json", "--seed", 1
    )
    assert done.status == 0, done.err
    return done.json, answer, timeline


def test_the_answer_is_audible_pcm_that_is_not_clipped(asked):
    _, path, _ = asked
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (22050, 1, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    level = samples / 32768
    assert np.sqrt(np.mean(level**2)) > 0.005
    assert np.mean(np.abs(samples) >= 32767) < 0.001
    # Sound all along, not a click and silence.
    blocks = level[: len(level) // 2205 * 2205].reshape(-1, 2205)
    assert np.mean(np.sqrt((blocks**2).mean(axis=1)) > 0.001) > 0.5


def test_the_length_of_the_answer_follows_from_its_tokens(asked):
    told, path, _ = asked
    with wave.open(str(path)) as file:
        seconds = file.getnframes() / file.getframerate()
    tokens = told["tokens"]["answer_audio"]
    assert tokens > 0
    assert tokens % 5 == 0
    # Each segment may round to whole mel frames of 11.6 ms.
    assert seconds == pytest.approx(tokens * SECONDS_PER_TOKEN, abs=0.1)
    assert told["audio"]["duration_s"] == pytest.approx(seconds)


def test_the_answer_is_told_with_tokens_timings_and_honesty(constellation, asked):
    told, _, _ = asked
    assert told["status"] == "COMPLETED"
    assert told["answer"]
    assert told["stub_weights"] is constellation.seeded
    # 3.545 s of question: 41.7 tokens a second, in whole groups.
    assert told["question"]["tokens"] == pytest.approx(3.545 / SECONDS_PER_TOKEN, abs=10)
    assert told["question"]["duration_s"] == pytest.approx(3.545, abs=0.01)
    stages = told["timings"]["stages"]
    assert {"tokenizer", "chat", "tts", "vocoder"} <= set(stages)
    for stage in stages.values():
        assert stage["start_s"] <= stage["first_output_s"] <= stage["end_s"]
    assert stages["vocoder"]["outputs"] == told["audio"]["samples"]
    assert 0 < told["timings"]["first_audio_s"] <= told["timings"]["total_s"]


def test_the_timeline_draws_every_stage(asked):
    _, _, page = asked
    text = page.read_text()
    assert all(
        each in text for each in ("tokenizer", "chat-llm", "tts", "vocoder", "audio arrives")
    )


async def test_the_turn_lands_in_history_with_its_transcript(constellation, asked):
    told, _, _ = asked
    async with constellation.client() as client:

        async def turn():
            turns = await client.turns(told["session"])
            return turns[0] if turns and not turns[0].transcript_pending else None

        found = await eventually(turn, 30, "a transcript")
    assert found.turn_id == told["turn_id"]
    assert found.user_text
    assert found.generated_text == told["answer"]
    assert found.user_audio_s == pytest.approx(3.545, abs=0.05)


def test_a_written_question_joins_the_session(constellation, asked):
    told, _, _ = asked
    done = constellation.parley(
        "ask", "--text", "And then?", "--session", told["session"], "--text-only", "--json"
    )
    assert done.status == 0, done.err
    assert done.json["session"] == told["session"]
    assert done.json["audio"] is None
    # The first turn stands in the prompt.
    alone = constellation.parley("ask", "--text", "And then?", "--text-only", "--json").json
    assert done.json["tokens"]["prompt"] > alone["tokens"]["prompt"]


def test_the_same_seed_gives_the_same_answer(constellation, asked, tmp_path):
    told, path, _ = asked
    again = constellation.parley(
        "ask", QUESTION, "-o", tmp_path / "again.wav", "--json", "--seed", 1
    )
    assert again.json["answer"] == told["answer"]
    assert (tmp_path / "again.wav").read_bytes() == path.read_bytes()


def test_for_people_the_command_prints_a_table_and_a_note(constellation, tmp_path):
    done = constellation.parley("ask", QUESTION, "-o", tmp_path / "a.wav")
    assert done.status == 0, done.err
    assert all(each in done.out for each in ("answer", "heard", "first audio", "vocoder", "a.wav"))
    assert ("random numbers" in done.err) is constellation.seeded


def test_say_transcribe_and_voices(constellation, tmp_path):
    voices = constellation.parley("voices", "--json").json
    assert voices
    target = tmp_path / "hello.wav"
    said = constellation.parley(
        "say", "Good evening to you.", "-o", target, "--voice", voices[0]["name"], "--json"
    )
    assert said.status == 0, said.err
    assert said.json["voice"] == voices[0]["name"]
    assert said.json["audio"]["rms"] > 0.005
    assert said.json["audio"]["duration_s"] == pytest.approx(
        said.json["tokens"]["audio"] * SECONDS_PER_TOKEN, abs=0.1
    )
    heard = constellation.parley("transcribe", QUESTION, "--json")
    assert heard.status == 0, heard.err
    assert heard.json["duration_s"] == pytest.approx(3.545, abs=0.01)


def test_a_voice_is_cloned_used_and_deleted(constellation, tmp_path):
    cloned = constellation.parley(
        *("voices", "clone", "e2e-voice", QUESTION, "--consent", "synthetic speech, no person"),
        *("--text", "Could you tell me a short story about the old bridge, please?", "--json"),
    )
    assert cloned.status == 0, cloned.err
    said = constellation.parley(
        "say", "Hello.", "-o", tmp_path / "o.wav", "--voice", "e2e-voice", "--json"
    )
    assert said.status == 0, said.err
    assert constellation.parley("voices", "delete", "e2e-voice").status == 0
    names = [each["name"] for each in constellation.parley("voices", "--json").json]
    assert "e2e-voice" not in names


def test_status_tells_every_address_and_a_second_up_changes_nothing(processes):
    status = processes.status()
    assert status["serving"] is True
    assert set(status["services"]) == {
        *("redis", "tokenizer", "chat-llm", "tts", "vocoder", "asr-context", "gateway")
    }
    pids = processes.pids()
    again = processes.parley("up")
    assert again.status == 0
    assert f"Already up: gateway at {status['address']}" in again.out
    assert processes.pids() == pids


def test_nothing_is_left_running_by_finished_calls(processes):
    until(lambda: not any(processes.running().values()), 5, "all requests ended")
