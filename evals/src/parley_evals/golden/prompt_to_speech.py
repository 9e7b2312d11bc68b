"""A prompt recording to codes, features and speech: the whole chain (golden kind)."""

from collections.abc import Iterator

import numpy as np
from parley_core.tokens import interleave, to_text
from parley_tokenizer.linguistic import LinguisticTokenizer
from parley_tokenizer.semantic import SemanticTokenizer
from parley_tokenizer.wave import prepare
from parley_tts.voices.features import PromptFeatureExtractor
from parley_vocoder.contract import VoiceConditioning
from parley_vocoder.decoder import Decoder
from parley_vocoder.noise import GivenNoise
from parley_vocoder.offline import decode_whole

from parley_evals.golden.case import Check, GoldenCase

AUDIO_OFFSET = 65536
# case.json gives no tolerance for features here; these are the ones of the feature case.
MEL_TOLERANCE, EMBEDDING_TOLERANCE = 2e-4, 2e-3


def compare(case: GoldenCase) -> Iterator[Check]:
    """Codes of both paths, features, embedding and the wave of every prompt."""
    linguistic = LinguisticTokenizer.load(case.checkpoint(0))
    semantic = SemanticTokenizer.load(case.checkpoint(1))
    extractor = PromptFeatureExtractor.from_folder(case.checkpoint(2))
    decoder = Decoder.load(case.checkpoint(2))
    for name, meta in case.meta["audio_meta"].items():
        channels, rate = case.wav(name)
        wave = channels.mean(axis=0)
        trimmed = prepare(wave, rate, level=True, trim=True)
        prompt = interleave(linguistic.encode(trimmed), semantic.encode(trimmed))
        codes = [AUDIO_OFFSET + i for i in prompt]
        yield case.equal(f"{name}.prompt_code", codes, case.outputs[f"{name}.prompt_code"])
        yield case.equal(f"{name}.prompt_token", [prompt], case.outputs[f"{name}.prompt_token"])

        whole = prepare(wave, rate, level=True, trim=False)
        first, second = linguistic.encode(whole), semantic.encode(whole)
        yield case.equal(f"{name}.chat_vq02", first, case.outputs[f"{name}.chat_vq02"])
        yield case.equal(f"{name}.chat_vq06", second, case.outputs[f"{name}.chat_vq06"])
        text = to_text(interleave(first, second))
        yield case.same(f"{name}: chat token text", text, meta["chat_token_string"])

        features = extractor.extract(wave, rate)
        yield case.same(f"{name}: mel shape", [1, *features.mel.shape], meta["speech_feat_shape"])
        ends = np.concatenate([features.mel[:5], features.mel[-5:]])
        key = f"{name}.speech_feat_first5_last5"
        yield case.close(key, ends, case.outputs[key], MEL_TOLERANCE)
        key = f"{name}.embedding"
        yield case.close(key, features.embedding, case.outputs[key], EMBEDDING_TOLERANCE)

        ids = (case.inputs[f"{name}.llm_output_ids_without_eos"][0] - AUDIO_OFFSET).tolist()
        noise = case.inputs[f"{name}.noise_z"][0]
        voice = decoder.voice(
            VoiceConditioning(np.array(prompt, np.int64), features.mel, features.embedding)
        )
        frames = features.mel.shape[0]
        given = GivenNoise(noise[:, :frames], noise[:, frames:])
        sound = decode_whole(decoder, voice, ids, given).samples
        yield case.close(
            f"{name}.wav", sound, case.outputs[f"{name}.wav"], case.tolerance("wav_atol")
        )
