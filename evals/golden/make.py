"""Writes the golden cases in this folder: `python evals/golden/make.py`.

A second, slow implementation in NumPy float64, written from the specification of the Step-Audio
formats. It imports nothing of Parley, so that a mistake in the serving code is not repeated here;
the system prompts are read as data. The runner compares the serving code with what this computes.
The same numbers come out at every run.
"""

from recipe.chat_and_tts_prompts import chat_and_tts_prompts
from recipe.flow import flow
from recipe.hift import hift
from recipe.linguistic_tokenizer import linguistic_tokenizer
from recipe.semantic_tokenizer import semantic_tokenizer
from recipe.step1_lm import step1_lm
from recipe.token_merge import token_merge
from recipe.token_to_wav import token_to_wav
from recipe.waveform import waveform

if __name__ == "__main__":
    token_merge()
    waveform()
    step1_lm()
    chat_and_tts_prompts()
    linguistic_tokenizer()
    semantic_tokenizer()
    flow()
    hift()
    token_to_wav()
