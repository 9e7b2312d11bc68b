"""The sound of a conversation, both sides on one clock."""

import os
import wave
from pathlib import Path

import numpy as np

from parley_client.errors import BadRecording
from parley_client.recording import Samples
from parley_client.talk import RATE


class Tape:
    """Records ticks; the user is left, the agent right."""

    def __init__(self) -> None:
        self._ticks: list[Samples] = []

    @property
    def duration_s(self) -> float:
        """Seconds recorded."""
        return sum(len(each) for each in self._ticks) / RATE

    def add(self, user: Samples, agent: Samples) -> None:
        """Adds a tick: int16 ``[n]`` of each side."""
        self._ticks.append(np.stack([user, agent], axis=1))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a stereo PCM16 WAV file.

        Raises:
            BadRecording: FILE_UNWRITABLE.
        """
        try:
            # Opened here: a `wave` that cannot open its file complains again when it is deleted.
            with Path(path).open("wb") as raw, wave.open(raw, "wb") as file:
                file.setnchannels(2)
                file.setsampwidth(2)
                file.setframerate(RATE)
                for tick in self._ticks:
                    file.writeframesraw(tick.astype("<i2").tobytes())
        except OSError as error:
            raise BadRecording(
                f"cannot write {path}: {error.strerror}", reason="FILE_UNWRITABLE"
            ) from None
