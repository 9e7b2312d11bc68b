"""The tts service: text and style tags in, dual-code audio tokens out, and the voices that speak.

Text is cut into segments while it is written (``segmenter``), each segment becomes one prompt for
the Step-1 TTS language model (``prompt``), and its audio tokens leave in whole groups
(``synthesizer``). Voices live in ``voices``. Turning tokens into sound is the vocoder's work.
"""
