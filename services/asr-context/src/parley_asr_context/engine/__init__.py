"""The speech recogniser, off the event loop. Knows neither gRPC nor Redis."""
