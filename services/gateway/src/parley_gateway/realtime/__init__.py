"""The OpenAI Realtime protocol over WebSocket: an adapter over the same conversations as gRPC."""
