"""Prompts of the two language models, style tags, the repetition filter (golden kind)."""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from parley_core.tokens import from_text
from parley_tts.prompt import BosPlacement, PromptBuilder, VoicePrompt
from parley_tts.system_prompts import load_system_prompts
from parley_tts.tags import detect_instruction, reference_style
from step1.chat_prompt import render
from step1.logits import RepetitionFilter
from step1.messages import AudioPart, Message, Part, Role, TextPart

from parley_evals.golden.case import Check, GoldenCase

AUDIO_OFFSET = 65536


def compare(case: GoldenCase) -> Iterator[Check]:
    """All tables and the recorded calls of the repetition filter."""
    yield from _system_prompts(case)
    yield from _tts_prompts(case)
    texts = case.rows("detect_instruction.json")
    ours = [detect_instruction(entry["text"]) for entry in texts]
    golden = [entry["instruction_name"] for entry in texts]
    yield case.same(f"instructions of {len(texts)} texts", ours, golden)
    yield from _chat_prompts(case)
    repetition = RepetitionFilter()
    for name in case.variants(".scores"):
        key = f"{name}.scores_out"
        scores = torch.from_numpy(case.inputs[f"{name}.scores"].copy())
        repetition.apply(case.inputs[f"{name}.ids"].tolist(), scores)
        yield case.equal(key, scores.numpy(), case.outputs[key])


def _system_prompts(case: GoldenCase) -> Iterator[Check]:
    prompts = load_system_prompts()
    for key, digest in case.meta["system_prompt_sha256"].items():
        ours = hashlib.sha256(getattr(prompts, _field(key)).encode()).hexdigest()
        yield case.same(f"system prompt {key}", ours, digest)


def _field(key: str) -> str:
    """Our name of one of the reference's system prompts."""
    return {
        "sys_prompt_for_rap": "rap",
        "sys_prompt_for_vocal": "humming",
        "sys_prompt_wo_spk": "without_speaker",
        "sys_prompt_with_spk": "with_speaker_template",
    }[key]


def _bytes(text: str) -> list[int]:
    return [100 + byte for byte in text.encode()]


def _newline_merge(text: str) -> list[int]:
    ids = _bytes(text)
    merged: list[int] = []
    for i in ids:
        if merged and merged[-1] == 110 and 165 <= i <= 190:
            merged[-1] = 900 + i
        else:
            merged.append(i)
    return merged


# The reference's toy tokenizers, as case.json describes them.
TOY_TOKENIZERS: dict[str, Callable[[str], list[int]]] = {
    "bytes": _bytes,
    "dummy_prefix": lambda text: [99, *_bytes(text)],
    "newline_merge": _newline_merge,
}


class _Toy:
    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self._encode = encode

    def encode_template(self, text: str) -> list[int]:
        return self._encode(text)

    def encode_text(self, text: str) -> list[int]:
        return self._encode(text)


def _tts_prompts(case: GoldenCase) -> Iterator[Check]:
    rows = case.rows("tokenize_cases.json")
    same = [_same_tts_prompt(row) for row in rows]
    yield case.same(f"TTS prompts of {len(rows)} cases", same, [True] * len(rows))


def _same_tts_prompt(row: dict[str, Any]) -> bool:
    toy = _Toy(TOY_TOKENIZERS[row["tokenizer"]])
    builder = PromptBuilder(toy, load_system_prompts(), bos=BosPlacement.SINGLE)
    voice = VoicePrompt(
        transcript=row["prompt_text"],
        tokens=tuple(code - AUDIO_OFFSET for code in row["prompt_code"]),
        speaker=row["prompt_speaker"],
    )
    ids = builder.build(builder.voice_prefix(voice, reference_style(row["text"])), row["text"])
    digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
    listed = row["ids"] is None or list(ids) == row["ids"]
    return bool(listed and len(ids) == row["n_ids"] and digest == row["sha256_of_ids_json"])


def _chat_prompts(case: GoldenCase) -> Iterator[Check]:
    rows = case.rows("chat_template.json")
    for index, row in enumerate(rows):
        ours = render([_message(entry) for entry in row["messages"]])
        yield case.same(f"chat template {index}", ours, row["rendered"])


def _message(entry: dict[str, Any]) -> Message:
    """One of the reference's messages as ours; without content it opens a turn."""
    content = entry["content"]
    return Message(_role(entry["role"]), None if content is None else _parts(content))


def _role(name: str) -> Role:
    return Role.USER if name == "human" else Role(name)


def _parts(content: Any) -> tuple[Part, ...]:
    match content:
        case str():
            return (TextPart(content),)
        case {"type": "text", "text": text}:
            return (TextPart(text),)
        case {"type": "audio", "audio": path}:
            # The reference's stub renders audio as two tokens, the first told by the path's length.
            return (AudioPart(tuple(from_text(f"<audio_{len(path)}><audio_7>"))),)
        case _:
            raise ValueError(f"unknown content {content!r}")
