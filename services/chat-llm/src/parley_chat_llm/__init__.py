"""The chat-llm service: messages with audio tokens in, text and function calls out.

`wire` reads requests into `step1.messages`, `chat_model` runs them on a Step-1 engine, `service` is
the gRPC edge. History belongs to asr-context, audio to the tokenizer, turns to the gateway.
"""
