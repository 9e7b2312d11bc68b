"""Cuts a stream that comes in packets of any size into frames of one size.

Invariant: no sample is lost, added or reordered; what is left at the end is told, not dropped.
Not for overlapping windows: those belong to the front end of a model.
"""

import numpy as np
import numpy.typing as npt


class Framer:
    """Frames of float samples.

    Args:
        frame_samples: length of a frame.

    Raises:
        ValueError: the length is not positive.
    """

    def __init__(self, frame_samples: int):
        if frame_samples <= 0:
            raise ValueError(f"a frame has a positive length, not {frame_samples}")
        self.frame_samples = frame_samples
        self._rest = np.zeros(0, dtype=np.float32)

    @property
    def pending(self) -> int:
        """Samples that wait for the rest of their frame."""
        return len(self._rest)

    def feed(self, samples: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Takes float32 ``[N]`` and returns the frames it completes, each ``[frame_samples]``."""
        joined = np.concatenate((self._rest, samples)) if len(self._rest) else samples
        whole = len(joined) - len(joined) % self.frame_samples
        self._rest = joined[whole:].copy()
        return [joined[at : at + self.frame_samples] for at in range(0, whole, self.frame_samples)]

    def finish(self) -> npt.NDArray[np.float32]:
        """Returns what fills no frame, ``[0..frame_samples - 1]``, and starts anew."""
        rest, self._rest = self._rest, np.zeros(0, dtype=np.float32)
        return rest


class ByteFramer:
    """Frames of bytes; otherwise like `Framer`."""

    def __init__(self, frame_bytes: int):
        if frame_bytes <= 0:
            raise ValueError(f"a frame has a positive length, not {frame_bytes}")
        self.frame_bytes = frame_bytes
        self._rest = b""

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Takes bytes and returns the frames they complete."""
        joined = self._rest + data
        whole = len(joined) - len(joined) % self.frame_bytes
        self._rest = joined[whole:]
        return [joined[at : at + self.frame_bytes] for at in range(0, whole, self.frame_bytes)]

    def finish(self) -> bytes:
        """Returns what fills no frame and starts anew."""
        rest, self._rest = self._rest, b""
        return rest
