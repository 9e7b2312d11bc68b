"""Answers in the TTS model's own tokens, each said in place of the right one that was due.

Teacher forcing: the model is told the right tokens so far, so what it says stays in step with the
recording, and with its mel. A flow that has heard nothing but the teacher's tokens takes the slips
of the model at their word; one that has heard these as well goes by what stands around them. Not
for speech: without the right tokens before it, it would say something of another length.
"""

from pathlib import Path

import numpy as np
import torch
from language_model import AUDIO_OFFSET, CALM, LanguageModel, Row
from numpy.typing import NDArray
from parley_core.tokens import SEMANTIC_OFFSET
from tts import Recording, trained


class Forced:
    """A TTS checkpoint that says what it is told."""

    def __init__(self, checkpoint: Path, tokenizer: Path) -> None:
        self._model, self._rows = trained(checkpoint, tokenizer)

    def say(self, answer: Recording, seed: int) -> NDArray[np.int16]:
        """Dual-code ids [n] in place of the answer's own, as served: the same temperature."""
        return said(self._model, self._rows.answer(answer), seed)


@torch.inference_mode()
def said(model: LanguageModel, row: Row, seed: int) -> NDArray[np.int16]:
    """What the model says for each audio id of a row [n], of the codebook that is due there."""
    due = torch.tensor(row.ids[row.prompt : -1])
    hidden = model.hidden(torch.tensor([row.ids[:-2]]))[0, row.prompt - 1 :]
    logits = model.lm_head(hidden)[:, AUDIO_OFFSET:]
    semantic = torch.arange(logits.shape[1]) >= SEMANTIC_OFFSET
    linguistic = due < AUDIO_OFFSET + SEMANTIC_OFFSET
    logits = logits.masked_fill(semantic == linguistic[:, None], -torch.inf)
    chances = (logits / CALM["temperature"]).softmax(-1)
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(chances, 1, generator=generator)[:, 0].numpy().astype(np.int16)
