"""Prompts of both language models, style tags, the repetition filter."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipe.case import AUDIO_OFFSET, GOLDEN, SEED, write_case, write_json

SYSTEM_PROMPTS = GOLDEN.parents[1] / "services/tts/src/parley_tts/data/system_prompts.json"

TEXTS = (
    "你好，世界。",
    "（高兴1）今天天气真好！",
    "(RAP)yo",
    "（哼唱）啦啦啦",
    "（RAP）我想要哼唱",
    "(RAP",
    "（RAP）说唱（结束）",
    "(RAP)ascii(end)",
    "（RAP）mixed(end)",
    "()x",
    "(a(b)c)x",
    "（a（b）c）x",
    " (RAP)",
    "",
    "(高兴1)\nlines",
    "（悲伤1)（慢速1）two",
    "【RAP】",
    "(one) (two)",
    "（)x",
    "(x）",
)


def instruction(text: str) -> str:
    """What the reference reads from the first bracket: greedy, only ASCII brackets end it."""
    if text[:1] not in ("(", "（"):
        return ""
    stop = next((i for i in range(1, len(text)) if text[i] in "()"), len(text))
    closing = [i for i in range(2, min(stop + 1, len(text))) if text[i] in ")）"]
    return text[1 : closing[-1]] if closing else ""


def repetition(ids: list[int], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """-inf for the last id when it occurs twice among the last ten of ten or more."""
    result = scores.copy()
    if len(ids) >= 10 and ids[-10:].count(ids[-1]) >= 2:
        result[ids[-1]] = -np.inf
    return result


def toy_bytes(text: str) -> list[int]:
    """One id a byte."""
    return [100 + byte for byte in text.encode()]


def toy_newline_merge(text: str) -> list[int]:
    """A newline and the capital after it become one id, so cutting after encoding matters."""
    ids: list[int] = []
    for each in toy_bytes(text):
        if ids and ids[-1] == 110 and 165 <= each <= 190:
            ids[-1] = 900 + each
        else:
            ids.append(each)
    return ids


def tts_prompt(
    encode: Callable[[str], list[int]], system: str, transcript: str, codes: list[int], text: str
) -> list[int]:
    """The two-turn prompt of the TTS model."""

    def continued(part: str) -> list[int]:
        return encode(f"\n{part}")[len(encode("\n")) :]

    assistant = [3, 4, *encode("assistant\n")]
    human = [3, 4, *encode("human\n")]
    ids = [1, 4, *encode(f"system\n{system}"), *human, *continued(transcript), *assistant, *codes]
    return [*ids, *human, *continued(text), *assistant]


def chat(messages: list[dict[str, Any]]) -> str:
    """The chat template; the stub for audio is told by the path's length."""
    text = ""
    for message in messages:
        content = message["content"]
        role = "human" if message["role"] == "user" else message["role"]
        text += f"<|BOT|>{role}\n"
        if content is None:
            continue
        if isinstance(content, dict):
            audio = content["type"] == "audio"
            content = f"<audio_{len(content['audio'])}><audio_7>" if audio else content["text"]
        text += f"{content}<|EOT|>"
    opening = "<|BOT|>assistant\n"
    return text if text.endswith(opening) else text + opening


def chat_and_tts_prompts() -> None:
    """Tag detection, both prompts, the repetition filter."""
    rng = np.random.default_rng(SEED)
    prompts = json.loads(SYSTEM_PROMPTS.read_text(encoding="utf-8"))
    digests = {key: hashlib.sha256(text.encode()).hexdigest() for key, text in prompts.items()}
    folder = write_case(
        "chat_and_tts_prompts", ["detect_instruction_name"], "exact", system_prompt_sha256=digests
    )
    write_json(
        folder / "detect_instruction.json",
        [{"text": text, "instruction_name": instruction(text)} for text in TEXTS],
    )
    toys = {
        "bytes": toy_bytes,
        "dummy_prefix": lambda text: [99, *toy_bytes(text)],
        "newline_merge": toy_newline_merge,
    }
    rows = []
    for number, text in enumerate(TEXTS):
        toy = list(toys)[number % 3]
        speaker = ("Tingting", "", "闫雨婷")[number // 3 % 3]
        transcript = ("Ask me. Twice", "", "（RAP）远远甩开", "Zwei\nZeilen")[number % 4]
        codes = (AUDIO_OFFSET + rng.integers(0, 5120, 5)).tolist()
        singing = instruction(text) in ("RAP", "哼唱")
        key = "sys_prompt_with_spk" if speaker else "sys_prompt_wo_spk"
        if singing:
            key = "sys_prompt_for_vocal" if "哼唱" in text else "sys_prompt_for_rap"
        system = prompts[key].replace("{}", speaker) if key.endswith("with_spk") else prompts[key]
        ids = tts_prompt(toys[toy], system, transcript, codes, text)
        rows.append(
            {
                "tokenizer": toy,
                "text": text,
                "prompt_text": transcript,
                "prompt_speaker": speaker,
                "prompt_code": codes,
                "n_ids": len(ids),
                "sha256_of_ids_json": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
                "ids": None,
            }
        )
    write_json(folder / "tokenize_cases.json", rows)
    audio = {"type": "audio", "audio": "recording.wav"}
    chats: list[list[dict[str, Any]]] = [
        [],
        [{"role": "user", "content": "你好"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": audio}],
        [{"role": "user", "content": {"type": "text", "text": "a\nb"}},
         {"role": "assistant", "content": "c"}, {"role": "user", "content": "d"}],
        [{"role": "user", "content": audio}, {"role": "assistant", "content": None}],
    ]  # fmt: skip
    write_json(
        folder / "chat_template.json",
        [{"messages": messages, "rendered": chat(messages)} for messages in chats],
    )
    inputs, outputs = {}, {}
    for number, length in enumerate((9, 10, 11, 25)):
        ids = rng.integers(0, 12, (6, length))
        ids[0, -2:] = 5
        ids[1] = np.arange(length) % 12
        scores = rng.standard_normal((6, 12)).astype(np.float32)
        filtered = [repetition(row.tolist(), each) for row, each in zip(ids, scores, strict=True)]
        inputs |= {f"r{number}.ids": ids, f"r{number}.scores": scores}
        outputs[f"r{number}.scores_out"] = np.stack(filtered)
    np.savez_compressed(folder / "inputs.npz", **inputs)
    np.savez_compressed(folder / "outputs.npz", **outputs)
