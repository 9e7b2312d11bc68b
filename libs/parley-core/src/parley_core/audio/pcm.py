"""Signed 16-bit little-endian PCM, the sample form of every stream on the wire.

Full scale is 32768 both ways, as in the reference, so int16 -> float -> int16 is exact.
Not for files: see `files`.
"""

import numpy as np
import numpy.typing as npt

from parley_core.errors import InvalidArgument

FULL_SCALE = 32768.0


def pcm16_to_float(
    pcm: bytes, *, channels: int = 1, field: str = "audio"
) -> npt.NDArray[np.float32]:
    """Reads PCM bytes and averages the channels to mono.

    Args:
        pcm: signed 16-bit little-endian samples, channels interleaved.
        channels: number of channels.
        field: request field to name in the error.

    Returns:
        float32 ``[N]`` in -1..1.

    Raises:
        InvalidArgument: reason AUDIO_FRAME_MALFORMED, the bytes are not whole samples of all
            channels.
    """
    width = 2 * channels
    if len(pcm) % width:
        raise InvalidArgument(
            f"{len(pcm)} bytes of PCM are not whole 16-bit samples of {channels} channel(s)",
            field=field,
            reason="AUDIO_FRAME_MALFORMED",
        )
    samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32) / np.float32(FULL_SCALE)
    return mix_down(samples.reshape(-1, channels).T) if channels > 1 else samples


def float_to_pcm16(samples: npt.NDArray[np.floating]) -> bytes:
    """Writes float samples ``[N]`` as PCM bytes; beyond -1..1 is clipped, NaN is silence."""
    scaled = np.rint(np.nan_to_num(samples, nan=0.0) * FULL_SCALE)
    return bytes(np.clip(scaled, -32768, 32767).astype("<i2").tobytes())


def mix_down(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Averages channels: ``[C, N]`` to ``[N]``, float32. ``[N]`` passes through."""
    if samples.ndim == 1:
        return samples
    mono: npt.NDArray[np.float32] = samples.mean(axis=0, dtype=np.float32)
    return mono
