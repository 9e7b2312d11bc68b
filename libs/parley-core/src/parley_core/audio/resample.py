"""Sample-rate conversion of live streams, by soxr.

For any packetisation the concatenated output of `Resampler` is the same signal. Model inputs that
must agree with the reference number for number go through `sinc` instead.
"""

import numpy as np
import numpy.typing as npt
import soxr


class Resampler:
    """Converts one mono stream; equal rates pass samples through untouched.

    Args:
        source_rate: Hz of what comes in.
        target_rate: Hz of what goes out.
        quality: soxr recipe; ``HQ`` has a delay of a few milliseconds.
    """

    def __init__(self, source_rate: int, target_rate: int, *, quality: str = "HQ"):
        self.source_rate = source_rate
        self.target_rate = target_rate
        self._stream = (
            None
            if source_rate == target_rate
            else soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32", quality=quality)
        )

    def feed(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Takes float32 ``[N]`` of any length and returns what is ready, ``[M]``."""
        if self._stream is None:
            return samples
        return self._convert(samples, last=False)

    def finish(self) -> npt.NDArray[np.float32]:
        """Returns the rest of the stream, ``[M]``, and is ready for a new one."""
        if self._stream is None:
            return np.zeros(0, dtype=np.float32)
        tail = self._convert(np.zeros(0, dtype=np.float32), last=True)
        self._stream.clear()
        return tail

    def _convert(self, samples: npt.NDArray[np.float32], *, last: bool) -> npt.NDArray[np.float32]:
        assert self._stream is not None
        converted: npt.NDArray[np.float32] = self._stream.resample_chunk(
            np.ascontiguousarray(samples, dtype=np.float32), last=last
        )
        return converted


def resample(
    samples: npt.NDArray[np.float32], source_rate: int, target_rate: int
) -> npt.NDArray[np.float32]:
    """Converts a whole mono signal ``[N]``, float32."""
    if source_rate == target_rate:
        return samples
    converted: npt.NDArray[np.float32] = soxr.resample(samples, source_rate, target_rate)
    return converted
