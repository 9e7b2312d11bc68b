"""The `parley` command: what it prints, and how it ends."""

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import wave

import grpc
import numpy as np
import pytest
import soundfile
from parley_client import BadRecording, Recording, write_wav
from parley_client.command import main

pytestmark = pytest.mark.contract

HERE = ("--address", "127.0.0.1:1")


@pytest.fixture
def question(tmp_path):
    path = tmp_path / "question.wav"
    write_wav(path, (np.sin(np.arange(16000) / 10) * 9000).astype(np.int16), 16000)
    return path


@pytest.fixture
def parley(gateway, tmp_path, capsys):
    """Runs the command against the fake; returns status, stdout, stderr."""

    async def call(*arguments, address=True):
        given = [str(each) for each in arguments]
        if address:
            given += ["--address", gateway.address]
        status = await asyncio.to_thread(main.run, given)
        return status, *capsys.readouterr()

    return call


async def test_ask_prints_the_answer_what_was_heard_and_where_the_time_went(
    parley, question, tmp_path
):
    target = tmp_path / "answer.wav"
    status, out, err = await parley("ask", question, "-o", target)
    assert status == 0
    assert "The bridge is <old>." in out
    assert "tell me" in out
    assert "look_up" in out
    assert all(name in out for name in ("tokenizer", "chat", "tts", "vocoder", "first audio"))
    assert "random numbers" in err
    with wave.open(str(target)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (22050, 1, 2)
        assert file.getnframes() == 22050


async def test_ask_json_is_all_of_stdout(parley, question, tmp_path):
    target = tmp_path / "answer.wav"
    status, out, _ = await parley("ask", question, "-o", target, "--json", "--seed", "7")
    told = json.loads(out)
    assert status == 0
    assert told["heard"] == "tell me"
    assert told["answer"] == "The bridge is <old>."
    assert told["stub_weights"] is True
    assert told["function_calls"][0]["name"] == "look_up"
    assert told["tokens"]["answer_audio"] == 40
    assert told["question"]["tokens"] == 148
    assert told["timings"]["stages"]["vocoder"]["end_s"] == pytest.approx(0.9)
    assert told["timings"]["first_audio_s"] == pytest.approx(0.31)
    assert told["audio"]["path"] == str(target)
    assert told["audio"]["duration_s"] == pytest.approx(1.0)
    assert 0 < told["audio"]["rms"] < told["audio"]["peak"] < 1


async def test_real_weights_bring_no_note(parley, gateway, question):
    gateway.speech.stub_weights = False
    _, _, err = await parley("ask", question)
    assert "random numbers" not in err


async def test_ask_passes_its_options_on(parley, gateway, tmp_path):
    functions = tmp_path / "functions.json"
    functions.write_text('[{"name": "f", "description": "d", "parameters": {"type": "object"}}]')
    await parley(
        *("ask", "--text", "hi", "--voice", "Anna", "--style", "高兴1", "--session", "s"),
        *("--seed", "3", "--temperature", "0", "--functions", functions, "--text-only", "--json"),
    )
    request = gateway.speech.requests[0]
    assert (request.text, request.session, request.text_only) == ("hi", "s", True)
    assert (request.config.voice, list(request.config.style_tags)) == ("Anna", ["高兴1"])
    assert (request.config.sampling.seed, request.config.functions[0].name) == (3, "f")


async def test_the_timeline_is_one_file_without_a_network(parley, question, tmp_path):
    page = tmp_path / "turn.html"
    status, _, _ = await parley("ask", question, "--timeline", page)
    text = page.read_text()
    assert status == 0
    assert "is &lt;old&gt;." in text
    assert "<old>" not in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert text.count("<svg") == 3
    assert "$" not in text
    assert all(name in text for name in ("tokenizer", "chat-llm", "tts", "vocoder", "plays", " ms"))


async def test_say_transcribe_and_voices(parley, question, tmp_path):
    target = tmp_path / "hello.wav"
    status, out, _ = await parley("say", "hello", "-o", target, "--voice", "Anna", "--json")
    assert (status, json.loads(out)["voice"]) == (0, "Anna")
    assert Recording.read(target).duration_s == pytest.approx(1.0)
    status, out, _ = await parley("transcribe", question)
    assert (status, out) == (0, "old bridge\n")
    status, out, _ = await parley("voices", "--json")
    assert [each["name"] for each in json.loads(out)] == ["Anna", "Tingting"]
    status, out, _ = await parley("voices", "list")
    assert "Tingting (default)" in out
    status, out, _ = await parley(
        *("voices", "clone", "me", question, "--text", "hi", "--consent", "mine", "--json")
    )
    assert json.loads(out)["cloned"] is True
    status, _, err = await parley("voices", "delete", "me")
    assert (status, err) == (0, "me deleted.\n")


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["ask"], 2, "USAGE"),
        (["ask", "q.wav", "--text", "x"], 2, "USAGE"),
        (["ask", "missing.wav"], 2, "FILE_NOT_FOUND"),
        (["ask", "text.wav"], 2, "NOT_AUDIO"),
        (["ask", "empty.wav"], 2, "AUDIO_EMPTY"),
        (["ask", "--text", "x", "-o", "no/such/folder.wav"], 2, "USAGE"),
        (["ask", "--text", "x", "--seed", "-1"], 2, "USAGE"),
        (["ask", "--text", "x", "--functions", "text.wav"], 2, "USAGE"),
        (["ask", "--text", "x", "-o", "folder"], 2, "USAGE"),
        (["ask", "--text", "x", "--timeline", "folder"], 2, "USAGE"),
        (["say", "x", "-o", "folder"], 2, "USAGE"),
        (["talk", "--wav", "long.flac", "-o", "folder"], 2, "USAGE"),
        (["talk", "--wav", "cut.flac"], 2, "AUDIO_MALFORMED"),
        (["talk", "--wav", "long.flac", "--silence", "inf", *HERE], 2, "MALFORMED_MESSAGE"),
        (["ask", "--text", "\udcff", *HERE], 2, "MALFORMED_MESSAGE"),
        (["ask", "--text", "x", "--voice", "\udcff", *HERE], 2, "MALFORMED_MESSAGE"),
        (["ask", "--text", "x", "--seed", str(2**64), *HERE], 2, "MALFORMED_MESSAGE"),
        (["say", "\udcff", "-o", "o.wav", *HERE], 2, "MALFORMED_MESSAGE"),
        (["voices", "--api-key", "\u00fc", *HERE], 2, "API_KEY_MALFORMED"),
        (["voices", "--ca-file", "missing.pem", *HERE], 2, "USAGE"),
        (["voices", "--ca-file", "text.wav", *HERE], 2, "USAGE"),
        (["voices", *HERE, "delete", "me"], 2, "USAGE"),
        (["voices", "--json", "list"], 2, "USAGE"),
        (["frobnicate"], 2, "USAGE"),
        (["transcribe", "missing.wav"], 2, "FILE_NOT_FOUND"),
        (["ask", "--text", "x"], 3, "NO_ADDRESS"),
        (["ask", "--text", "x", "--address", "127.0.0.1:1"], 3, "UNREACHABLE"),
        (["weights", "check", "nowhere"], 1, "WEIGHTS_MISSING"),
        (["up", "--port", "tts=x"], 2, "USAGE"),
        (["up", "--port", "nobody=1"], 2, "USAGE"),
        (["logs", "nobody"], 2, "USAGE"),
        (["up", "--redis", "redis://["], 1, "REDIS_URL_INVALID"),
        (["up", "--seed", f"{2**63}"], 2, "USAGE"),
        (["weights", "seed", "w", "--seed", f"{2**63}"], 2, "USAGE"),
        (["weights", "pull", "w", "--endpoint", "http://127.0.0.1:1"], 2, "USAGE"),
        (["weights", "pull", "w", "--region", "eu-west-1"], 2, "USAGE"),
        (["doctor", "-n", "parley"], 2, "USAGE"),
        (["doctor", "--manifest", "missing.yaml"], 2, "USAGE"),
        (["ask", "--text", "x", "--address", "\udcff"], 2, "MALFORMED_MESSAGE"),
    ],
)
def test_every_failure_is_one_line_with_its_reason(
    arguments, status, reason, tmp_path, monkeypatch, capsys
):
    (tmp_path / "text.wav").write_text("I am text")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "folder").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(tmp_path / "long.flac", noise, 16000)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "long.flac").read_bytes()[:9000])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PARLEY_ADDRESS", raising=False)
    assert main.run(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.endswith(f"[{reason}]\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "declared",
    [
        '[{"name": 1}]',
        '[{"name": "\\ud800"}]',
        '[{"name": "f", "parameters": [1]}]',
        '[{"name": "f", "parameters": "x"}]',
        '[{"name": "f", "timeout_s": "x"}]',
        '[{"name": "f", "timeout_s": 1e300}]',
        '[{"name": "f", "timeout_s": NaN}]',
        "[" * 100_000,
    ],
)
@pytest.mark.parametrize("command", ["ask", "talk"])
async def test_functions_that_cannot_be_declared_are_wrong_usage(
    parley, gateway, question, tmp_path, declared, command
):
    functions = tmp_path / "functions.json"
    if command == "talk":
        declared = declared.replace("}]", ', "run": ["true"]}]')
    functions.write_text(declared)
    spoken = ["--wav", question] if command == "talk" else [question]
    status, out, err = await parley(command, *spoken, "--functions", functions)
    assert (status, out) == (2, "")
    assert err.endswith("[USAGE]\n")
    assert err.count("\n") == 1
    assert gateway.speech.requests == gateway.conversations.requests == []


async def run_apart(shell, gateway, **environment):
    """Runs a line of shell, where `parley` is the command; status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f'parley() {{ "{sys.executable}" -m parley_client "$@"; }}; {shell}'),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PARLEY_ADDRESS": gateway.address, **environment},
    )
    out, err = await asyncio.wait_for(process.communicate(), 40)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("command", ["voices --json", "voices"])
async def test_whoever_has_read_enough_is_no_failure(gateway, command):
    status, _, err = await run_apart(f"set -o pipefail; parley {command} | true", gateway)
    assert (status, err) == (0, "")


async def test_a_closed_stdout_is_no_failure(gateway):
    assert await run_apart("parley ask --text x --json >&-", gateway) == (0, "", "")


@pytest.mark.parametrize("option", ["", "--json"])
async def test_a_terminal_that_knows_few_letters_is_shown_their_numbers(gateway, option, tmp_path):
    shell = f"cd {tmp_path}; parley say x -o ü.wav {option}"
    # As it is where no locale is set, and Python is told not to choose one.
    plain = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    status, out, err = await run_apart(shell, gateway, **plain)
    assert (status, err) == (0, "Speaking\n" if err else "")
    if option:
        assert json.loads(out)["audio"]["samples"] == 22050
    else:
        assert "\\" in out
    assert (tmp_path / "ü.wav").exists()


def test_a_target_that_cannot_be_opened_is_one_line(tmp_path):
    """Found out only when it is written: the folder went away meanwhile."""
    with pytest.raises(BadRecording) as caught:
        write_wav(tmp_path / "gone" / "o.wav", np.zeros(8, np.int16), 8000)
    assert caught.value.reason == "FILE_UNWRITABLE"
    told = "from parley_client import *; import numpy as np\n"
    told += "try: write_wav('/', np.zeros(8, np.int16), 8000)\n"
    told += "except BadRecording as error: print(error.reason)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("FILE_UNWRITABLE\n", "")


@pytest.mark.parametrize("command", ["ask", "say", "transcribe", "voices"])
async def test_a_refusal_of_the_server_is_status_4(parley, gateway, question, tmp_path, command):
    gateway.speech.refuse = gateway.refusal(
        grpc.StatusCode.UNAVAILABLE, "tts is down", "STAGE_LOST", retry_after=0.5
    )
    target = tmp_path / "o.wav"
    arguments = {
        "ask": [question, "-o", target],
        "say": ["x", "-o", target],
        "transcribe": [question],
        "voices": [],
    }[command]
    status, out, err = await parley(command, *arguments)
    assert (status, out) == (4, "")
    assert err == "error: tts is down (try again in 0.5 s) [STAGE_LOST]\n"
    assert not target.exists()


async def test_a_defect_shows_no_trace(parley, monkeypatch):
    monkeypatch.setattr("parley_client.command.ask.connect", lambda *_: 1 / 0)
    monkeypatch.delenv("PARLEY_DEBUG", raising=False)
    status, _, err = await parley("ask", "--text", "x")
    assert status == 1
    assert err.endswith("[DEFECT]\n")
    assert err.count("\n") == 1


async def test_control_characters_of_a_model_do_not_reach_the_terminal(parley, gateway):
    from parley_client.command.console import clean

    assert clean("a\x1b[2Jb\nc") == "a\ufffd[2Jb\nc"
    gateway.speech.refuse = gateway.refusal(
        grpc.StatusCode.NOT_FOUND, "no voice \x1b[2J", "VOICE_NOT_FOUND"
    )
    _, _, err = await parley("voices")
    assert err == "error: no voice \ufffd[2J [VOICE_NOT_FOUND]\n"


async def test_ctrl_c_cancels_the_call_and_is_status_130(gateway, tmp_path):
    gateway.speech.hang = True
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "parley_client", "ask", "--text", "x"),
        *("--address", gateway.address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Tests that run in a shell's background inherit that Ctrl-C is ignored.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    shown = await asyncio.wait_for(process.stdout.readuntil(b"bridge"), 20)
    assert b"The bridge" in shown
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 130
    assert err.decode().strip().splitlines()[-1] == "error: interrupted [INTERRUPTED]"
    assert b"Traceback" not in err
    await asyncio.wait_for(gateway.speech.cancelled.wait(), 5)
