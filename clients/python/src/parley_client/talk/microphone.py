"""Where the user's voice comes from: a file, or the sound card.

Contract: `ticks` yields a frame of the user's voice every 20 ms, int16 ``[FRAME]`` at `RATE`; what
the agent says in the same 20 ms goes to `play`. A file goes on as silence behind its end, as a
microphone would. `exhausted` tells that nothing more will be said.
"""

import asyncio
import collections
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from parley_client.recording import Recording, Samples
from parley_client.talk import FRAME, RATE

# Frames that may wait for a busy machine before the oldest is lost: half a second.
_MAX_WAITING = 25


class DeviceMissing(Exception):  # noqa: N818 - a condition, as in google.rpc.Code
    """There is no microphone or loudspeaker to use."""

    reason = "DEVICE_MISSING"


class Microphone(Protocol):
    """Both ends of the air between the user and this machine."""

    @property
    def exhausted(self) -> bool:
        """Whether the user will say nothing more."""

    def ticks(self) -> AsyncIterator[Samples]:
        """What is heard, frame by frame, for ever."""

    def play(self, frame: Samples) -> None:
        """Takes what the agent says in this tick."""

    async def __aenter__(self) -> Self:
        """Begins to hear."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends."""


class FileMicrophone:
    """A recording, spoken at the speed at which it was recorded.

    Args:
        recording: any rate and number of channels; it is mixed and converted here, once.
        fast: the file goes as fast as the server takes it; what follows it does not.
    """

    def __init__(self, recording: Recording, *, fast: bool = False):
        samples, rate = recording.samples()
        voice = np.rint(np.clip(resample(samples, rate, RATE), -1, 1) * 32767).astype(np.int16)
        self._voice = np.pad(voice, (0, -len(voice) % FRAME)).reshape(-1, FRAME)
        self._fast = fast
        self._position = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    @property
    def exhausted(self) -> bool:
        """Whether the file has ended."""
        return self._position >= len(self._voice)

    async def ticks(self) -> AsyncIterator[Samples]:
        """The file, then silence."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        silence = np.zeros(FRAME, np.int16)
        while True:
            if self.exhausted:
                frame = silence
            else:
                frame = self._voice[self._position]
                self._position += 1
            if self._fast and not self.exhausted:
                due = loop.time()
            else:
                await asyncio.sleep(due - loop.time())
                due += FRAME / RATE
            yield frame

    def play(self, frame: Samples) -> None:
        """Nobody listens."""


class DeviceMicrophone:
    """The machine's microphone and loudspeaker.

    Raises:
        DeviceMissing: the package sounddevice, PortAudio or a device is missing.
    """

    def __init__(self) -> None:
        try:
            import sounddevice
        except ImportError:
            raise DeviceMissing(
                "the microphone needs the package sounddevice: pip install 'parley[mic]', "
                "or speak a file with --wav FILE"
            ) from None
        except OSError:
            raise DeviceMissing(
                "the microphone needs PortAudio (Debian: apt install libportaudio2), "
                "or speak a file with --wav FILE"
            ) from None
        self._heard: asyncio.Queue[Samples] = asyncio.Queue()
        # Filled here, emptied by PortAudio's thread; append and popleft are atomic.
        self._to_play: collections.deque[bytes] = collections.deque(maxlen=_MAX_WAITING)
        self._loop: asyncio.AbstractEventLoop
        try:
            self._stream = sounddevice.RawStream(
                samplerate=RATE,
                blocksize=FRAME,
                channels=1,
                dtype="int16",
                callback=self._on_block,
            )
        except sounddevice.PortAudioError as error:
            raise DeviceMissing(
                f"no microphone and loudspeaker can be opened ({error}); "
                "plug one in, or speak a file with --wav FILE"
            ) from None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._stream.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    @property
    def exhausted(self) -> bool:
        """Never: who speaks hangs up."""
        return False

    async def ticks(self) -> AsyncIterator[Samples]:
        """What the microphone hears."""
        while True:
            while self._heard.qsize() > _MAX_WAITING:
                self._heard.get_nowait()
            yield await self._heard.get()

    def play(self, frame: Samples) -> None:
        """Plays a frame as soon as those before it are played."""
        self._to_play.append(frame.astype("<i2").tobytes())

    def _on_block(self, heard: Any, played: Any, frames: int, time: Any, status: Any) -> None:
        samples = np.frombuffer(bytes(heard), np.int16)
        self._loop.call_soon_threadsafe(self._heard.put_nowait, samples)
        played[:] = self._to_play.popleft() if self._to_play else bytes(len(played))


def resample(samples: npt.NDArray[np.float32], rate: int, wanted: int) -> npt.NDArray[np.float64]:
    """Converts a whole recording to another rate, band-limited: its spectrum, cut or padded.

    Args:
        samples: ``[n]``.
        rate: Hz of ``samples``.
        wanted: Hz of the result.
    """
    if rate == wanted:
        return samples.astype(np.float64)
    # Silence around it, because a spectrum knows no ends: one would ring into the other.
    margin = rate // 10
    padded = np.pad(samples, margin)
    size = round(len(padded) * wanted / rate)
    converted = np.fft.irfft(np.fft.rfft(padded), size) * (size / len(padded))
    skip = round(margin * wanted / rate)
    return converted[skip : skip + round(len(samples) * wanted / rate)]
