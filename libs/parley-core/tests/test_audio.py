import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_core.audio import (
    ByteFramer,
    Framer,
    Resampler,
    float_to_pcm16,
    pcm16_to_float,
    read_audio,
    resample,
    wav_bytes,
    write_wav,
)
from parley_core.errors import InvalidArgument

pytestmark = pytest.mark.unit


def tone(seconds=0.25, rate=16000, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(
        np.float32
    )


def encoded(form, channels=1, rate=16000, subtype=None, seconds=0.25):
    file = io.BytesIO()
    samples = np.stack([tone(seconds, rate)] * channels, axis=1)
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def refusal(content, **limits):
    with pytest.raises(InvalidArgument) as caught:
        read_audio(content, **limits)
    return caught.value.reason


@given(st.binary(max_size=400).filter(lambda data: len(data) % 2 == 0))
def test_pcm_survives_the_round_trip(pcm):
    assert float_to_pcm16(pcm16_to_float(pcm)) == pcm


def test_pcm_is_little_endian_with_full_scale_32768():
    np.testing.assert_array_equal(pcm16_to_float(b"\x00\x80\x00\x40"), [-1.0, 0.5])


def test_what_exceeds_full_scale_is_clipped_and_nan_is_silence():
    pcm = float_to_pcm16(np.array([2.0, -2.0, np.nan], np.float32))
    assert struct.unpack("<3h", pcm) == (32767, -32768, 0)


def test_channels_are_averaged():
    np.testing.assert_array_equal(
        pcm16_to_float(struct.pack("<4h", 16384, 0, -16384, -16384), channels=2), [0.25, -0.5]
    )


@pytest.mark.parametrize(("size", "channels"), [(1, 1), (3, 1), (6, 2)])
def test_half_samples_are_refused(size, channels):
    with pytest.raises(InvalidArgument) as caught:
        pcm16_to_float(bytes(size), channels=channels, field="audio")
    assert (caught.value.reason, caught.value.field) == ("AUDIO_FRAME_MALFORMED", "audio")


def test_an_empty_frame_is_no_samples():
    assert pcm16_to_float(b"").shape == (0,)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_are_read(form, channels):
    audio = read_audio(encoded(form, channels))
    assert audio.samples.shape == (channels, 4000)
    assert audio.samples.dtype == np.float32
    assert (audio.sample_rate, audio.duration) == (16000, 0.25)
    assert np.abs(audio.mono() - tone()).max() < (0.05 if form == "OGG" else 1e-4)


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_channels_mixed_while_they_are_read_are_those_mixed_afterwards(channels):
    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-1, 1, (70_000, channels))
    soundfile.write(file, samples, 16000, format="WAV", subtype="PCM_24")
    mixed = read_audio(file.getvalue(), mix=True)
    np.testing.assert_array_equal(mixed.samples, read_audio(file.getvalue()).mono()[None])


@pytest.mark.parametrize("codec", ["GSM610", "G721_32", "ULAW"])
def test_a_wav_of_a_telephone_codec_is_read(codec):
    told = tone(rate=8000)
    heard = read_audio(encoded("WAV", rate=8000, subtype=codec)).mono()[: len(told)]
    assert np.corrcoef(heard, told)[0, 1] > 0.95


def test_a_written_wav_reads_back(tmp_path):
    write_wav(tmp_path / "a.wav", tone(rate=22050), 22050)
    audio = read_audio(tmp_path / "a.wav")
    assert audio.sample_rate == 22050
    assert np.abs(audio.mono() - tone(rate=22050)).max() <= 1 / 32768


@pytest.mark.parametrize("keep", [12, 30, 44, 45, 1000, -1])
def test_a_truncated_wav_is_refused(keep):
    assert refusal(wav_bytes(tone(), 16000)[:keep]) == "AUDIO_TRUNCATED"


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_whose_writer_left_the_length_open_is_taken(length):
    content = bytearray(wav_bytes(tone(), 16000))
    content[40:44] = struct.pack("<I", length)
    assert read_audio(bytes(content)).samples.shape == (1, 4000)


def test_a_truncated_flac_is_refused():
    content = encoded("FLAC")
    assert refusal(content[: len(content) // 2]) in {"AUDIO_TRUNCATED", "AUDIO_MALFORMED"}


def flac_of_untold_length(frames: int = 4000) -> bytes:
    """As an encoder writes it into a pipe: the 36 bits of the length stay 0."""
    content = bytearray(encoded("FLAC", seconds=frames / 16000))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return bytes(content)


@pytest.mark.parametrize("frames", [4000, 65536, 200_000])
def test_a_flac_whose_writer_left_the_length_open_is_read_to_its_end(frames):
    audio = read_audio(flac_of_untold_length(frames), max_duration_s=20)
    assert np.abs(audio.mono() - tone(frames / 16000)).max() < 1e-4


def test_a_flac_of_untold_length_is_held_to_the_limit():
    assert refusal(flac_of_untold_length(200_000), max_duration_s=5) == "AUDIO_TOO_LONG"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "AUDIO_EMPTY"),
        (wav_bytes(np.zeros(0, np.float32), 16000), "AUDIO_EMPTY"),
        (b"hello world, this is not audio at all, not even close", "AUDIO_MALFORMED"),
        (encoded("AIFF"), "AUDIO_FORMAT_UNSUPPORTED"),
        (encoded("WAV", channels=9), "CHANNEL_COUNT_UNSUPPORTED"),
        (encoded("WAV", rate=4000), "SAMPLE_RATE_UNSUPPORTED"),
        (encoded("WAV", rate=384000), "SAMPLE_RATE_UNSUPPORTED"),
    ],
)
def test_what_is_not_a_sound_recording_is_refused_with_its_cause(content, reason):
    assert refusal(content) == reason


@pytest.mark.parametrize("sample", [np.nan, np.inf, 1e19, -1e37])
def test_samples_that_are_no_sound_are_refused(sample):
    file = io.BytesIO()
    samples = np.array([0, sample, 0.5], np.float32)
    soundfile.write(file, samples, 16000, format="WAV", subtype="FLOAT")
    assert refusal(file.getvalue()) == "AUDIO_MALFORMED"


def test_limits_hold():
    assert refusal(encoded("WAV"), max_bytes=100) == "AUDIO_TOO_LARGE"
    assert refusal(encoded("WAV"), max_duration_s=0.1) == "AUDIO_TOO_LONG"


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 3000), max_size=12),
    st.sampled_from([(48000, 16000), (8000, 16000), (22050, 16000)]),
)
def test_resampling_does_not_depend_on_the_packets(cuts, rates):
    source, target = rates
    signal = tone(0.5, source)
    whole = Resampler(source, target)
    expected = np.concatenate([whole.feed(signal), whole.finish()])
    packets = np.split(signal, sorted(min(cut, len(signal)) for cut in cuts))
    stream = Resampler(source, target)
    got = np.concatenate([*(stream.feed(packet) for packet in packets), stream.finish()])
    assert len(got) == len(expected) == round(len(signal) * target / source)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert np.abs(got[800:-800] - tone(0.5, target)[800:-800]).max() < 1e-3


def test_a_resampler_is_ready_for_the_next_stream():
    stream = Resampler(48000, 16000)
    first = np.concatenate([stream.feed(tone(rate=48000)), stream.finish()])
    second = np.concatenate([stream.feed(tone(rate=48000)), stream.finish()])
    np.testing.assert_array_equal(first, second)


def test_equal_rates_pass_through():
    stream = Resampler(16000, 16000)
    np.testing.assert_array_equal(stream.feed(tone()), tone())
    assert stream.finish().size == 0
    np.testing.assert_array_equal(resample(tone(), 16000, 16000), tone())


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 30))
def test_frames_lose_and_add_nothing(packets, size):
    samples = np.arange(sum(packets), dtype=np.float32)
    framer, byte_framer = Framer(size), ByteFramer(size)
    frames, byte_frames = [], []
    for packet in np.split(samples, np.cumsum(packets)[:-1]) if packets else []:
        frames += framer.feed(packet)
        byte_frames += byte_framer.feed(packet.astype(np.uint8).tobytes())
    assert all(frame.shape == (size,) for frame in frames)
    assert framer.pending == len(samples) % size == byte_framer.pending
    np.testing.assert_array_equal(np.concatenate([*frames, framer.finish()]), samples)
    assert b"".join([*byte_frames, byte_framer.finish()]) == samples.astype(np.uint8).tobytes()
    assert framer.pending == 0
