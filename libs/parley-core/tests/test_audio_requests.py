import io
import tracemalloc

import numpy as np
import pytest
import soundfile
from parley.audio.v1 import audio_pb2
from parley_core.audio import float_to_pcm16, pcm_format, read_frame, read_recording, wav_bytes
from parley_core.errors import InvalidArgument

pytestmark = pytest.mark.unit

CONTAINER = audio_pb2.AudioFormat(encoding=audio_pb2.AUDIO_ENCODING_CONTAINER)
TONE = (0.5 * np.sin(np.arange(1600) / 9)).astype(np.float32)


def pcm(rate: int = 16000, channels: int = 1) -> audio_pb2.AudioFormat:
    return audio_pb2.AudioFormat(
        encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=rate, channel_count=channels
    )


@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_and_its_samples_are_the_same_recording(channels: int) -> None:
    frames = np.repeat(TONE, channels)
    raw = read_recording(float_to_pcm16(frames), pcm(22050, channels), max_duration_s=1)
    file = read_recording(
        wav_bytes(np.stack([TONE] * channels), 22050), CONTAINER, max_duration_s=1
    )
    assert raw.sample_rate == file.sample_rate == 22050
    np.testing.assert_array_equal(raw.samples, file.samples)


def test_eight_channels_take_the_memory_of_one() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((30 * 48000, 8), np.int16), 48000, format="FLAC")
    content = file.getvalue()
    assert len(content) < 50_000
    tracemalloc.start()
    try:
        recording = read_recording(content, CONTAINER, max_duration_s=30)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert recording.samples.shape == (30 * 48000,)
    assert peak < 4 * recording.samples.nbytes


def test_no_channel_count_means_mono() -> None:
    assert pcm_format(pcm(8000, 0)) == (8000, 1)


@pytest.mark.parametrize(
    ("content", "given", "field", "reason"),
    [
        (b"", pcm(), "content", "AUDIO_EMPTY"),
        (b"", CONTAINER, "content", "AUDIO_EMPTY"),
        (b"abc", pcm(), "content", "AUDIO_FRAME_MALFORMED"),
        (bytes(32004), pcm(), "content", "AUDIO_TOO_LONG"),
        (wav_bytes(np.zeros(16001), 16000), CONTAINER, "content", "AUDIO_TOO_LONG"),
        (b"ab", pcm(4000), "told.sample_rate_hertz", "SAMPLE_RATE_UNSUPPORTED"),
        (b"ab", pcm(16000, 9), "told.channel_count", "CHANNEL_COUNT_UNSUPPORTED"),
        (b"ab", audio_pb2.AudioFormat(), "told.encoding", "AUDIO_ENCODING_UNSUPPORTED"),
        (
            b"ab",
            audio_pb2.AudioFormat(encoding=7),  # type: ignore[arg-type]
            "told.encoding",
            "AUDIO_ENCODING_UNSUPPORTED",
        ),
    ],
)
def test_what_is_no_recording_is_refused_by_field(content, given, field, reason) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_recording(content, given, max_duration_s=1, format_field="told")
    assert (caught.value.field, caught.value.reason) == (field, reason)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [(b"", "AUDIO_EMPTY"), (bytes(642), "AUDIO_TOO_LARGE"), (b"a", "AUDIO_FRAME_MALFORMED")],
)
def test_what_is_no_frame_is_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_frame(frame, 1, max_bytes=640)
    assert (caught.value.field, caught.value.reason) == ("audio", reason)
