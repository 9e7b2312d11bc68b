"""Seeded weights of every stage, written once a run into a folder that goes away."""

from functools import cached_property
from pathlib import Path

from parley_tokenizer.seeded import write_seeded as write_tokenizer
from parley_vocoder.contract import FlowModel
from parley_vocoder.seeded import write_seeded as write_vocoder
from step1.seeded import write_seeded_chat


class SeededWeights:
    """Folders in the published formats below `root`, each written when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def decoder(self) -> Path:
        """A CosyVoice folder: flow and HiFT."""
        write_vocoder(self._root / "tts")
        return self._root / "tts" / FlowModel.COMMON.value

    @cached_property
    def tokenizer(self) -> Path:
        """A Step-Audio-Tokenizer folder."""
        write_tokenizer(self._root / "tokenizer")
        return self._root / "tokenizer"

    @cached_property
    def chat(self) -> Path:
        """A Step-1 chat checkpoint."""
        write_seeded_chat(self._root / "chat")
        return self._root / "chat"
