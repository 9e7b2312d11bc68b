"""What the vocoder needs of a voice prompt: mel and speaker embedding (spec 4.5, 5; golden 07).

Both start from the raw mono recording: no level change, no trimming (only the prompt's tokens are
made from trimmed audio, by the tokenizer). Files of a ``CosyVoice-300M-25Hz`` folder:
``cosyvoice.yaml`` and ``campplus.onnx``. Blocking; callers on an event loop use a worker thread.
"""

from dataclasses import dataclass
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import numpy.typing as npt
import onnxruntime
from parley_core.audio.sinc import resample_sinc
from parley_core.errors import FailedPrecondition
from parley_core.hyperpyyaml import ConfigError, load, mel_analysis

from parley_tts.voices.mel import MelSettings, log_mel, resample_for_mel

EMBEDDING_SAMPLE_RATE = 16000
EMBEDDING_BINS = 80
EMBEDDING_SIZE = 192
_TRIED_FRAMES = 100


@dataclass(frozen=True)
class PromptFeatures:
    """Features of one prompt.

    Attributes:
        mel: float32 ``[F, mel_bins]``.
        embedding: float32 ``[192]``, not normalised.
    """

    mel: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]


class PromptFeatureExtractor:
    """Computes prompt features with one CosyVoice folder's settings and speaker model.

    Safe to share between threads: the ONNX session is, and nothing else changes.
    """

    def __init__(self, mel_settings: MelSettings, speaker_model: Path) -> None:
        """Loads the speaker model and runs it once.

        Raises:
            FailedPrecondition: the file is missing, is no ONNX model, or is another network.
        """
        self.mel_settings = mel_settings
        if not speaker_model.is_file():
            raise FailedPrecondition(
                f"speaker model {speaker_model} is missing", reason="WEIGHTS_MISSING"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(speaker_model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise FailedPrecondition(
                f"speaker model {speaker_model} cannot be loaded: {error}", reason="WEIGHTS_BROKEN"
            ) from error
        try:
            self._input_name = self._session.get_inputs()[0].name
            self.embed(np.zeros((_TRIED_FRAMES, EMBEDDING_BINS), np.float32))
        except Exception as error:
            cause = str(error).splitlines() or [type(error).__name__]
            raise FailedPrecondition(
                f"speaker model {speaker_model} is another network: {cause[0]}",
                reason="WEIGHTS_BROKEN",
            ) from error

    @classmethod
    def from_folder(cls, cosyvoice_folder: Path) -> "PromptFeatureExtractor":
        """Loads settings and speaker model of a CosyVoice folder.

        Raises:
            FailedPrecondition: a file is missing or broken.
        """
        return cls(
            load_mel_settings(cosyvoice_folder / "cosyvoice.yaml"),
            cosyvoice_folder / "campplus.onnx",
        )

    def extract(self, wave: npt.NDArray[np.float32], sample_rate: int) -> PromptFeatures:
        """Features of a prompt, float32 ``[N]`` mono at ``sample_rate`` Hz."""
        return PromptFeatures(
            mel=self.prompt_mel(wave, sample_rate),
            embedding=self.speaker_embedding(wave, sample_rate),
        )

    def prompt_mel(
        self, wave: npt.NDArray[np.float32], sample_rate: int
    ) -> npt.NDArray[np.float32]:
        """Log-mel ``[F, mel_bins]`` of a prompt ``[N]`` at ``sample_rate`` Hz."""
        resampled = resample_for_mel(wave, sample_rate, self.mel_settings.sample_rate)
        return log_mel(resampled, self.mel_settings)

    def speaker_embedding(
        self, wave: npt.NDArray[np.float32], sample_rate: int
    ) -> npt.NDArray[np.float32]:
        """Speaker embedding (x-vector) ``[192]`` of a prompt ``[N]`` at ``sample_rate`` Hz."""
        fbank = speaker_fbank(resample_sinc(wave, sample_rate, EMBEDDING_SAMPLE_RATE))
        return self.embed(fbank - fbank.mean(axis=0, keepdims=True))

    def embed(self, fbank: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Runs the speaker model on mean-free fbank frames ``[T, 80]``; returns ``[192]``."""
        outputs = self._session.run(None, {self._input_name: fbank[None]})
        embedding = np.asarray(outputs[0], dtype=np.float32).reshape(-1)
        if embedding.shape != (EMBEDDING_SIZE,):
            raise FailedPrecondition(
                f"the speaker model gives {embedding.size} values, not {EMBEDDING_SIZE}",
                reason="WEIGHTS_BROKEN",
            )
        if not np.isfinite(embedding).all():
            raise FailedPrecondition(
                "the speaker model gives values that are not finite", reason="WEIGHTS_BROKEN"
            )
        return embedding


def speaker_fbank(wave: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Kaldi fbank of the speaker model: Povey window, no dither, signal in -1..1.

    Args:
        wave: float32 ``[N]`` at 16 kHz.

    Returns:
        float32 ``[T, 80]``, the mean over time still in it.
    """
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = EMBEDDING_SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = EMBEDDING_BINS
    options.energy_floor = 1.0
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(EMBEDDING_SAMPLE_RATE, wave.tolist())
    fbank.input_finished()
    if not fbank.num_frames_ready:
        return np.zeros((0, EMBEDDING_BINS), np.float32)
    return np.stack([fbank.get_frame(index) for index in range(fbank.num_frames_ready)])


def load_mel_settings(path: Path) -> MelSettings:
    """Reads the mel settings of a ``cosyvoice.yaml``, under whatever name the vocoder finds them.

    Raises:
        FailedPrecondition: the file or the block is missing or not understood.
    """
    if not path.is_file():
        raise FailedPrecondition(f"{path} is missing", reason="WEIGHTS_MISSING")
    try:
        mel = mel_analysis(load(path))
        mel.demand("center", False)
        return MelSettings(
            sample_rate=mel.integer("sampling_rate"),
            n_fft=mel.integer("n_fft"),
            hop_size=mel.integer("hop_size"),
            win_size=mel.integer("win_size"),
            num_mels=mel.integer("num_mels"),
            fmin=mel.number("fmin"),
            fmax=mel.number("fmax"),
        )
    except ConfigError as error:
        raise FailedPrecondition(f"{path}: {error}", reason="CONFIG_NOT_UNDERSTOOD") from error
