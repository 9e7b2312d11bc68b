"""Numbers of the reference implementation (golden cases 05, 05b, 06, 08, 11)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parley_vocoder.contract import VoiceConditioning
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.flow.solver import Trajectory, euler_step
from parley_vocoder.noise import GivenNoise
from parley_vocoder.offline import WholeDecode, decode_whole

pytestmark = pytest.mark.golden


class Case:
    def __init__(self, golden: Path, name: str) -> None:
        folder = golden / name
        self.about: dict[str, Any] = json.loads((folder / "case.json").read_text())
        self.inputs = np.load(folder / "inputs.npz") if (folder / "inputs.npz").exists() else None
        self.outputs = np.load(folder / "outputs.npz")


@pytest.fixture(scope="module")
def reference(golden: Path) -> Decoder:
    return Decoder.load(golden / "cosyvoice_model")


def flow_decode(
    decoder: Decoder, inputs: Any, variant: str, tokens: str, feat: str
) -> tuple[WholeDecode, Trajectory, int]:
    # Golden ids may be negative, which the reference clamps: the contract's check is passed by.
    prompt_tokens = inputs[f"{variant}.prompt_token"][0].clip(min=0)
    voice = VoiceConditioning(
        prompt_tokens, inputs[f"{variant}.{feat}"][0], inputs[f"{variant}.embedding"][0]
    )
    noise, frames = inputs[f"{variant}.noise_z"][0], len(voice.prompt_mel)
    decode = WholeDecode(
        decoder, decoder.voice(voice), GivenNoise(noise[:, :frames], noise[:, frames:])
    )
    decode.push(inputs[f"{variant}.{tokens}"][0].tolist())
    decode.end()
    trajectory = decode.next()
    assert trajectory is not None
    return decode, trajectory, frames


def solve(decoder: Decoder, trajectory: Trajectory) -> None:
    while trajectory.step < len(decoder.grid.times):
        rate = decoder.config.flow.inference_cfg_rate
        euler_step(decoder.flow.estimator, [trajectory], decoder.grid, rate)


@pytest.mark.parametrize("variant", ["A_prompt", "B_odd", "C_noprompt", "D_short", "E_long"])
def test_flow_gives_the_reference_mel(golden: Path, reference: Decoder, variant: str) -> None:
    case = Case(golden, "05_flow")
    _, trajectory, frames = flow_decode(reference, case.inputs, variant, "token", "prompt_feat")
    if f"{variant}.length_regulated_h" in case.outputs:
        expected = case.outputs[f"{variant}.length_regulated_h"][0].T
        tolerance = case.about["tolerance"]["intermediate_atol"]
        np.testing.assert_allclose(trajectory.mu, expected, atol=tolerance, rtol=0)
    solve(reference, trajectory)
    expected = case.outputs[f"{variant}.mel"][0]
    tolerance = case.about["tolerance"]["mel_atol"]
    np.testing.assert_allclose(trajectory.x[:, frames:], expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("variant", ["A_prompt", "B_odd", "C_noprompt", "D_short"])
def test_bfloat16_flow_is_as_near_as_the_reference_run(golden: Path, variant: str) -> None:
    decoder = Decoder.load(golden / "cosyvoice_model", flow_dtype=torch.bfloat16)
    case = Case(golden, "05b_flow_bf16")
    inputs = Case(golden, "05_flow").inputs
    assert decoder.grid.times == tuple(case.about["variants"][variant]["t_per_call"])
    _, trajectory, frames = flow_decode(decoder, inputs, variant, "token", "prompt_feat")
    solve(decoder, trajectory)
    error = np.abs(trajectory.x[:, frames:].float().numpy() - case.outputs[f"{variant}.mel"][0])
    assert error.mean() < case.about["tolerance"]["mean_abs"]


@pytest.mark.parametrize("variant", ["real", "rand", "one_frame"])
@torch.inference_mode()
def test_hift_gives_the_reference_sound(golden: Path, reference: Decoder, variant: str) -> None:
    case = Case(golden, "06_hift")
    tolerance = case.about["tolerance"]
    hift = reference.hift

    def given(name: str) -> torch.Tensor:
        return torch.from_numpy(case.inputs[f"{variant}.{name}"])

    def check(actual: torch.Tensor, name: str, atol: float) -> None:
        np.testing.assert_allclose(actual, case.outputs[f"{variant}.{name}"], atol=atol, rtol=0)

    mel = given("mel")
    f0 = hift.f0_predictor(mel)
    check(f0, "f0", tolerance["f0_atol"])
    silence, still = torch.zeros(1, 9, mel.shape[2] * 256), torch.zeros(1, 9)
    golden_f0 = torch.from_numpy(case.outputs[f"{variant}.f0"])
    source, _ = hift.m_source(golden_f0, still, silence)
    check(source, "source_zero_phase_zero_noise", tolerance["source_atol_given_golden_f0"])
    source, _ = hift.m_source(f0, still, silence)
    check(source, "source_zero_phase_zero_noise", tolerance["source_atol_from_own_f0"])
    check(hift.generate(mel, source), "wav_zero_phase_zero_noise", tolerance["wav_zero_noise_atol"])
    fixed = hift.generate(mel, given("fixed_source"))
    check(fixed, "wav_fixed_source", tolerance["wav_fixed_source_atol"])
    if variant == "real":
        return
    offset = given("phase_vec_before_zeroing_fundamental")[:, :, 0].clone()
    offset[:, 0] = 0
    source, _ = hift.m_source(f0, offset, given("sine_noise"))
    check(source, "source_given_phase_and_noise", tolerance["source_atol_from_own_f0"])
    check(hift.generate(mel, source), "wav_given_phase_and_noise", tolerance["wav_zero_noise_atol"])


@pytest.mark.parametrize("variant", ["a", "b"])
def test_tokens_become_the_reference_wave(golden: Path, reference: Decoder, variant: str) -> None:
    case = Case(golden, "08_token_to_wav")
    decode, trajectory, _ = flow_decode(
        reference, case.inputs, variant, "speech_token", "speech_feat"
    )
    solve(reference, trajectory)
    excitation = decode.excite(trajectory)
    np.testing.assert_allclose(
        excitation.mel, case.outputs[f"{variant}.mel"][0], atol=case.about["tolerance"]["mel_atol"]
    )
    sound = reference.hift.generate(excitation.mel[None], excitation.source[None])[0]
    np.testing.assert_allclose(
        decode.emit(sound).samples,
        case.outputs[f"{variant}.wav"][0],
        atol=case.about["tolerance"]["wav_atol"],
    )


@pytest.mark.parametrize("variant", ["tingting", "lixueqin"])
def test_a_cloned_voice_speaks_as_in_the_reference(
    golden: Path, reference: Decoder, variant: str
) -> None:
    from parley_tts.voices.features import PromptFeatureExtractor

    case = Case(golden, "11_prompt_wav_to_speech")
    samples = case.inputs[f"{variant}.wav"].astype(np.float32).mean(axis=0) / 32768
    rate = case.about["audio_meta"][variant]["sr"]
    extractor = PromptFeatureExtractor.from_folder(golden / "cosyvoice_model")
    features = extractor.extract(samples, rate)
    voice = VoiceConditioning(
        case.outputs[f"{variant}.prompt_token"][0], features.mel, features.embedding
    )
    noise, frames = case.inputs[f"{variant}.noise_z"][0], len(features.mel)
    chunk = decode_whole(
        reference,
        reference.voice(voice),
        (case.inputs[f"{variant}.llm_output_ids_without_eos"][0] - 65536).tolist(),
        GivenNoise(noise[:, :frames], noise[:, frames:]),
    )
    tolerance = case.about["tolerance"]["wav_atol"]
    np.testing.assert_allclose(chunk.samples, case.outputs[f"{variant}.wav"][0], atol=tolerance)
