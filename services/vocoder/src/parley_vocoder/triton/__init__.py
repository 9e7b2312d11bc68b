"""The vocoder inside Triton Inference Server: the same engine, another host.

`model` runs in Triton's Python backend around `engine.torch_engine`; `host` makes the model
repository and starts the server; `engine.triton_engine` is the service's client. `wire` is what
both ends agree on.
"""
