"""Parley's vocoder: dual-code audio tokens in, 22.05 kHz speech out.

`contract` says what goes in and out, `engine` computes it, `service` puts it on gRPC.
"""
