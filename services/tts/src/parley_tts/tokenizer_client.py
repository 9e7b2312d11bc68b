"""Prompt tokens from the tokenizer service."""

import io

import numpy as np
import numpy.typing as npt
import soundfile
from parley.audio.v1 import audio_pb2
from parley.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from parley_core.audio import float_to_pcm16, pcm16_to_float
from parley_core.clients import Stage
from parley_core.settings import ClientSettings


class TokenizerClient:
    """``PromptTokenizer`` over gRPC: silence trimmed, level normalised, as the reference does."""

    def __init__(self, settings: ClientSettings) -> None:
        """Opens the channel; must be called inside the event loop."""
        self._stage = Stage("tokenizer", settings, tokenizer_pb2_grpc.TokenizerServiceStub)

    async def tokenize(self, wave: npt.NDArray[np.float32], sample_rate: int) -> list[int]:
        """Dual-code ids 0..5119 of a recording ``[N]`` at ``sample_rate`` Hz.

        Raises:
            ParleyError: what the tokenizer says; ``Unavailable`` when it is not there.
        """
        request = tokenizer_pb2.TokenizeRequest(trim_silence=True)
        pcm = float_to_pcm16(wave)
        # Samples that 16 bits do not hold exactly travel as float: the tokens must be those of the
        # very recording.
        if np.array_equal(pcm16_to_float(pcm), wave):
            request.format.encoding = audio_pb2.AUDIO_ENCODING_PCM_S16LE
            request.format.sample_rate_hertz = sample_rate
            request.format.channel_count = 1
            request.content = pcm
        else:
            file = io.BytesIO()
            soundfile.write(file, wave, sample_rate, format="WAV", subtype="FLOAT")
            request.format.encoding = audio_pb2.AUDIO_ENCODING_CONTAINER
            request.content = file.getvalue()
        with self._stage.errors():
            response = await self._stage.stub.Tokenize(request)
        return list(response.tokens.ids)

    async def close(self) -> None:
        """Closes the channel."""
        await self._stage.close()
