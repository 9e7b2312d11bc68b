"""A recording in a request: checked before any stage is troubled with it.

Contract: PCM or a whole WAV, FLAC or OGG file in; mono 16 kHz PCM for the transcription out, beside
the original for the tokenizer, which resamples as its reference does. Errors name the wrong field.
Not for live audio (`microphone`).
"""

from dataclasses import dataclass

from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import speech_pb2
from parley_core.audio import check_format, float_to_pcm16, pcm16_to_float, read_audio, resample
from parley_core.errors import InvalidArgument

SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that was found good.

    Attributes:
        content: As it came.
        sample_rate: Of the content if it is PCM, Hz; None for a file with a header of its own.
        channels: Of the content if it is PCM.
        pcm: All of it as PCM_S16LE, mono, 16 kHz.
        duration: Seconds.
    """

    content: bytes
    sample_rate: int | None
    channels: int
    pcm: bytes
    duration: float


def check_recording(recording: speech_pb2.Recording, *, field: str, longest: float) -> Recording:
    """Decodes and checks a recording. Takes time: run it outside the event loop.

    Args:
        recording: From a request.
        field: Its path in the request.
        longest: Seconds that it may last.

    Raises:
        InvalidArgument: It is empty, cut off, too long, or in a format that is not taken.
    """
    encoding = recording.format.encoding
    if encoding == audio_pb2.AUDIO_ENCODING_CONTAINER:
        audio = read_audio(
            recording.content, max_duration_s=longest, mix=True, field=f"{field}.content"
        )
        mono, rate, pcm_rate, channels = audio.mono(), audio.sample_rate, None, 1
    elif encoding == audio_pb2.AUDIO_ENCODING_PCM_S16LE:
        rate = pcm_rate = recording.format.sample_rate_hertz
        channels = recording.format.channel_count or 1
        check_format(rate, channels, field=f"{field}.format")
        if not recording.content:
            raise InvalidArgument(
                "the recording is empty: 0 bytes", field=f"{field}.content", reason="AUDIO_EMPTY"
            )
        mono = pcm16_to_float(recording.content, channels=channels, field=f"{field}.content")
    else:
        raise InvalidArgument(
            "tell the encoding of the recording: PCM_S16LE or CONTAINER",
            field=f"{field}.format.encoding",
            reason="AUDIO_ENCODING_UNSUPPORTED",
        )
    seconds = len(mono) / rate
    if seconds > longest:
        raise InvalidArgument(
            f"the recording lasts {seconds:.1f} s, at most {longest:g} s are taken",
            field=f"{field}.content",
            reason="AUDIO_TOO_LONG",
        )
    pcm = float_to_pcm16(resample(mono, rate, SAMPLE_RATE))
    return Recording(recording.content, pcm_rate, channels, pcm, seconds)
