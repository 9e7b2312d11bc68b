from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from material import joined, spoken, stream_alone, voice, whole_alone
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.flow.solver import Trajectory
from parley_vocoder.measure import distance
from parley_vocoder.noise import SeededNoise
from parley_vocoder.offline import run_alone
from parley_vocoder.streaming import WindowedDecode
from parley_vocoder.windows import WindowSettings

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("tokens", [1, 2, 5, 7, 20, 21, 25, 123])
def test_a_stream_is_exactly_as_long_as_the_whole(decoder: Decoder, tokens: int) -> None:
    ids = spoken(25)[:tokens]
    chunks = stream_alone(decoder, voice(4), ids)
    assert len(joined(chunks)) == int(tokens / 41.667 * 22050 / 256) * 256
    assert [chunk.start for chunk in chunks] == np.cumsum(
        [0, *(len(chunk.samples) for chunk in chunks[:-1])]
    ).tolist()
    assert [chunk.final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_sound_does_not_depend_on_how_tokens_were_pushed(decoder: Decoder) -> None:
    ids = spoken(20)
    at_once = joined(stream_alone(decoder, voice(), ids))
    for step in (5, 35):
        assert np.array_equal(joined(stream_alone(decoder, voice(), ids, step=step)), at_once)


def test_the_first_chunk_leaves_before_the_utterance_is_known(decoder: Decoder) -> None:
    settings = WindowSettings()
    decode = WindowedDecode(decoder, decoder.voice(voice()), SeededNoise(0), settings)
    decode.push(spoken(settings.ramp[0] + settings.look_ahead))
    (first,) = run_alone(decoder, decode)
    assert len(first.samples) == 20 * 256
    assert not first.final


def test_windows_stay_near_the_whole_and_joins_do_not_click(decoder: Decoder) -> None:
    ids, speaker = spoken(80, seed=4), voice(12)
    chunks = stream_alone(decoder, speaker, ids, seed=4)
    whole = whole_alone(decoder, speaker, ids, seed=4)
    measured = distance(chunks, whole, decoder.config.mel)
    other = whole_alone(decoder, speaker, spoken(80, seed=5), seed=4)
    unrelated = distance([other], whole, decoder.config.mel)
    assert measured.log_mel_db < 2.5
    assert measured.log_mel_db < 0.5 * unrelated.log_mel_db
    assert abs(measured.loudness_db) < 0.2
    # A join is no louder a step than the voice makes by itself.
    assert measured.join_step < 1
    assert measured.join_log_mel_db < 1.5 * measured.log_mel_db


def test_the_distance_tells_foreign_sound(decoder: Decoder) -> None:
    ids, speaker = spoken(80, seed=4), voice()
    chunks = stream_alone(decoder, speaker, ids, seed=4)
    foreign = stream_alone(decoder, speaker, spoken(80, seed=9), seed=9)
    spliced = [chunks[0], *foreign[1:]]
    whole = whole_alone(decoder, speaker, ids, seed=4)
    smooth = distance(chunks, whole, decoder.config.mel)
    assert distance(spliced, whole, decoder.config.mel).log_mel_db > 2 * smooth.log_mel_db


def test_cost_and_memory_of_a_window_do_not_grow(decoder: Decoder) -> None:
    settings = WindowSettings()
    decode = WindowedDecode(decoder, decoder.voice(voice()), SeededNoise(0), settings)
    frames, held = [], []
    for _ in range(12):
        decode.push(spoken(settings.ramp[-1]))
        while (trajectory := decode.next()) is not None:
            frames.append(trajectory.frames)
            finish(decoder, decode, trajectory)
        held.append(len(decode._ids))
    assert len(set(frames[6:])) == 1
    assert max(held[6:]) == min(held[6:])
    assert decode._mel.shape[1] == 16
    assert decode._source.shape[1] == 16 * 256


def finish(decoder: Decoder, decode: WindowedDecode, trajectory: Trajectory) -> None:
    excitation = decode.excite(trajectory)
    sound = decoder.hift.generate(excitation.mel[None], excitation.source[None])[0]
    decode.emit(sound)


def test_a_long_prompt_is_carried_in_part(decoder: Decoder) -> None:
    settings = WindowSettings(max_prompt_frames=40)
    long = voice(20)
    decode = WindowedDecode(decoder, decoder.voice(long, 40), SeededNoise(0), settings)
    decode.push(spoken(4))
    trajectory = decode.next()
    assert trajectory is not None
    assert trajectory.frames == 40 + 41
    kept = decoder.voice(long, 40)
    assert np.array_equal(kept.prompt_mel.T.numpy(), long.prompt_mel[-40:])
    assert kept.prompt_tokens.tolist() == long.prompt_tokens[-20:].tolist()


def test_a_window_carries_no_more_prompt_than_the_folder_allows(decoder: Decoder) -> None:
    sparing = copy(decoder)
    sparing.config = replace(
        decoder.config, flow=replace(decoder.config.flow, max_prompt_frames=40)
    )
    long = voice(20)
    assert sparing.voice(long, 258).prompt_mel.shape[1] == 40
    assert sparing.voice(long, 30).prompt_mel.shape[1] == 30
    assert sparing.voice(long).prompt_mel.shape[1] == len(long.prompt_mel)


def test_seed_and_voice_change_the_sound(decoder: Decoder) -> None:
    ids = spoken(6)
    base = joined(stream_alone(decoder, voice(), ids, seed=1))
    assert np.array_equal(base, joined(stream_alone(decoder, voice(), ids, seed=1)))
    assert not np.array_equal(base, joined(stream_alone(decoder, voice(), ids, seed=2)))
    assert not np.array_equal(base, joined(stream_alone(decoder, voice(0, 3), ids, seed=1)))
