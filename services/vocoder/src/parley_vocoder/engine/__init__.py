"""Where the decoder's models run. Knows tensors and threads, never gRPC."""
