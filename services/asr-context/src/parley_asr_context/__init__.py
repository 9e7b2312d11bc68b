"""Conversation context: sessions, turns, leases, transcription over Redis, and prompts of them.

The modules from the inside out: `keys` (names in Redis), `redis_store` (connection, scripts, typed
failures), `sessions`, `turns`, `leases`, `transcription_queue` and `worker` (one noun each),
`prompt` (a pure function), `history` (what composes them), `service` and `server` (the gRPC edge).
"""
