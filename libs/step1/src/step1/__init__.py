"""The Step-1 language model of Step-Audio, as Chat (130B) and TTS (3B) use it.

Read in this order: `config` (what a checkpoint says of itself), `weights` and `model` (the
network), `text_tokenizer`, `messages` and `chat_prompt` (what goes in), `logits` and `sampling`
(what may come out), `engine` (many requests at once).

Not here: gRPC, voices, audio. The services own those.
"""
