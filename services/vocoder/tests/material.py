"""Tokens, voices and decodings that several test modules need."""

import numpy as np
from parley_vocoder.contract import AudioChunk, VoiceConditioning
from parley_vocoder.decoder import Decoder
from parley_vocoder.noise import SeededNoise
from parley_vocoder.offline import decode_whole, run_alone
from parley_vocoder.streaming import WindowedDecode
from parley_vocoder.windows import WindowSettings


def spoken(groups: int, seed: int = 0) -> list[int]:
    """Ids in the grammar, five a group."""
    rng = np.random.default_rng(seed)
    linguistic = rng.integers(0, 1024, (groups, 2))
    semantic = rng.integers(1024, 5120, (groups, 3))
    return np.concatenate([linguistic, semantic], axis=1).ravel().tolist()


def voice(prompt_groups: int = 0, seed: int = 0) -> VoiceConditioning:
    rng = np.random.default_rng(seed)
    tokens = spoken(prompt_groups, seed)
    mel = rng.normal(-5, 2, (len(tokens) * 2, 80)).astype(np.float32)
    return VoiceConditioning(
        np.array(tokens, np.int64), mel, rng.standard_normal(192).astype(np.float32)
    )


def stream_alone(
    decoder: Decoder,
    conditioning: VoiceConditioning,
    ids: list[int],
    *,
    seed: int = 0,
    step: int | None = None,
    settings: WindowSettings | None = None,
) -> list[AudioChunk]:
    """Decode in windows, tokens arriving `step` at a time."""
    settings = settings or WindowSettings()
    prepared = decoder.voice(conditioning, settings.max_prompt_frames)
    decode = WindowedDecode(decoder, prepared, SeededNoise(seed), settings)
    chunks = []
    for at in range(0, len(ids), step or len(ids)):
        decode.push(ids[at : at + (step or len(ids))])
        chunks += run_alone(decoder, decode)
    decode.end()
    return chunks + run_alone(decoder, decode)


def whole_alone(
    decoder: Decoder, conditioning: VoiceConditioning, ids: list[int], seed: int = 0
) -> AudioChunk:
    return decode_whole(decoder, decoder.voice(conditioning), ids, SeededNoise(seed))


def joined(chunks: list[AudioChunk]) -> np.ndarray:
    return np.concatenate([chunk.samples for chunk in chunks])
