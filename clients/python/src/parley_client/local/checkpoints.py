"""Tells which checkpoints a folder holds and whether each is complete.

Contract: every part is opened by the loader that its service uses, so what passes here loads there;
the first problem of a part is told in one line and the other parts are looked at all the same. The
language models are checked by the headers of their files, which takes seconds for 260 GB too; the
smaller models are loaded. Needs the services' packages; not for downloading (`hubs`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from parley_client.local.errors import LocalError
from parley_client.local.services import (
    CHAT_FOLDER,
    COSYVOICE_FOLDER,
    TOKENIZER_FOLDER,
    TTS_FOLDER,
)

MUSIC_FOLDER = f"{COSYVOICE_FOLDER}-Music"


@dataclass(frozen=True)
class Part:
    """One checkpoint in a folder.

    Attributes:
        path: where it lies.
        kind: what it is, for people.
        detail: its size and shape, for people; empty when it has a problem.
        problem: why it cannot be served, in one line; empty when it can.
    """

    path: Path
    kind: str
    detail: str = ""
    problem: str = ""


Probe = Callable[[Path], str]


def inspect(folder: Path) -> list[Part]:
    """The checkpoints of a folder: a whole root, or one checkpoint by itself.

    Raises:
        LocalError: WEIGHTS_UNKNOWN when the folder holds nothing that is known, PACKAGE_MISSING
            when the services are not installed.
    """
    roots = [folder / name for name in (TOKENIZER_FOLDER, CHAT_FOLDER, TTS_FOLDER)]
    present = [root for root in roots if root.is_dir()]
    if present:
        missing = [
            Part(root, "checkpoint", problem="the folder is missing")
            for root in roots
            if root not in present
        ]
        return [part for root in present for part in _parts(root)] + missing
    parts = list(_parts(folder))
    if not parts:
        raise LocalError(
            f"{folder} holds neither {TOKENIZER_FOLDER}, {CHAT_FOLDER}, {TTS_FOLDER} "
            "nor files of one of them",
            reason="WEIGHTS_UNKNOWN",
        )
    return parts


def _parts(folder: Path) -> Iterator[Part]:
    if folder.name == TOKENIZER_FOLDER or (folder / "linguistic_tokenizer.npy").is_file():
        yield _probe(folder, "linguistic tokenizer", _linguistic)
        yield _probe(folder, "semantic tokenizer", _semantic)
        yield _probe(folder, "speech recognizer", _recognizer)
    if folder.name in (CHAT_FOLDER, TTS_FOLDER) or (folder / "config.json").is_file():
        yield _probe(folder, "Step-1 language model", _language_model)
        yield _probe(folder, "text tokenizer", _text_tokenizer)
    if folder.name == TTS_FOLDER or (folder / "speakers").is_dir():
        yield _probe(folder / "speakers", "voices", _voices)
    if folder.name == TTS_FOLDER:
        for name in (COSYVOICE_FOLDER, MUSIC_FOLDER):
            yield _probe(folder / name, "vocoder", _vocoder)
        yield _probe(folder / COSYVOICE_FOLDER, "speaker embedding", _speaker_embedding)
    elif (folder / "cosyvoice.yaml").is_file():
        yield _probe(folder, "vocoder", _vocoder)


def _probe(path: Path, kind: str, probe: Probe) -> Part:
    try:
        return Part(path, kind, detail=probe(path))
    except ModuleNotFoundError as error:
        raise LocalError(
            f"the package {error.name} is not installed; checking weights needs the services",
            reason="PACKAGE_MISSING",
        ) from None
    except Exception as error:
        # Loaders name the file and the tensor in their first line.
        lines = str(error).splitlines()
        return Part(path, kind, problem=lines[0] if lines else type(error).__name__)


def _linguistic(folder: Path) -> str:
    from parley_tokenizer.linguistic import LinguisticTokenizer

    model = LinguisticTokenizer.load(folder)
    config = model.encoder.config
    rows = model.codebook.shape[0]
    return f"{config.num_blocks} blocks of {config.output_size}, {rows} codes"


def _semantic(folder: Path) -> str:
    from parley_tokenizer.semantic import SemanticTokenizer

    model = SemanticTokenizer.load(folder).model
    return "batched" if model.batched else "one stream a call"


def _recognizer(folder: Path) -> str:
    from paraformer.asr import Recognizer, find_checkpoint

    Recognizer.load(find_checkpoint(folder))
    return "encoder, predictor, decoder, vocabulary"


def _language_model(folder: Path) -> str:
    from step1.config import Step1Config
    from step1.generation_config import SamplingDefaults
    from step1.weights import check_weights, expected_shapes

    config = Step1Config.load(folder)
    check_weights(folder, config)
    SamplingDefaults().of_checkpoint(folder)
    parameters = 0
    for shape in expected_shapes(config).values():
        size = 1
        for length in shape:
            size *= length
        parameters += size
    kv = config.kv_bytes_per_token() / 1024
    return (
        f"{parameters / 1e9:.2f} B parameters, {config.num_hidden_layers} layers of "
        f"{config.hidden_size}, context {config.max_seq_len}, {kv:.1f} KiB of KV a token"
    )


def _text_tokenizer(folder: Path) -> str:
    from step1.config import Step1Config
    from step1.text_tokenizer import TextTokenizer

    offset = Step1Config.load(folder).audio_token_offset
    return f"{TextTokenizer.load(folder, audio_offset=offset).size} pieces"


def _voices(folder: Path) -> str:
    from parley_tts.voices.registry import SpeakerRegistry

    speakers = list(SpeakerRegistry(folder))
    for speaker in speakers:
        speaker.recording()
    return ", ".join(speaker.name for speaker in speakers)


def _vocoder(folder: Path) -> str:
    from parley_vocoder.decoder import Decoder

    decoder = Decoder.load(folder)
    return f"{decoder.config.sample_rate} Hz, {decoder.config.flow.vocab_size} ids"


def _speaker_embedding(folder: Path) -> str:
    from parley_tts.voices.features import PromptFeatureExtractor

    PromptFeatureExtractor.from_folder(folder)
    return "192 values"
