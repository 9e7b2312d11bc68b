"""Tokens and voice to sound, whole (golden kind `token_to_wav`)."""

from collections.abc import Iterator

from parley_vocoder.decoder import Decoder
from parley_vocoder.noise import GivenNoise
from parley_vocoder.offline import decode_whole

from parley_evals.golden.case import Check, GoldenCase
from parley_evals.golden.flow import finish, start, variant_voice


def compare(case: GoldenCase) -> Iterator[Check]:
    """Mel and wave of every variant."""
    decoder = Decoder.load(case.checkpoint())
    for name in case.variants(".speech_token"):
        voice = variant_voice(decoder, case.inputs, name, "speech_feat")
        ids = case.inputs[f"{name}.speech_token"][0].tolist()
        noise = case.inputs[f"{name}.noise_z"][0]
        trajectory = start(decoder, voice, ids, noise)
        finish(decoder, trajectory)
        frames = voice.prompt_mel.shape[1]
        mel = trajectory.x[:, frames:]
        key = f"{name}.mel"
        yield case.close(key, mel, case.outputs[key], case.tolerance("mel_atol"))
        given = GivenNoise(noise[:, :frames], noise[:, frames:])
        sound = decode_whole(decoder, voice, ids, given).samples
        key = f"{name}.wav"
        yield case.close(key, sound, case.outputs[key], case.tolerance("wav_atol"))
