"""Writes the golden cases in this folder: `python evals/golden/make.py`.

A second, slow implementation in NumPy float64, written from the specification of the Step-Audio
formats. It imports nothing of Parley, so that a mistake in the serving code is not repeated here;
the system prompts are read as data. The runner compares the serving code with what this computes.
The same numbers come out at every run.
"""

from recipe.chat_and_tts_prompts import chat_and_tts_prompts
from recipe.step1_lm import step1_lm
from recipe.token_merge import token_merge
from recipe.waveform import waveform

if __name__ == "__main__":
    token_merge()
    waveform()
    step1_lm()
    chat_and_tts_prompts()
