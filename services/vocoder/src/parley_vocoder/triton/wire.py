"""What the Triton model and its client say to each other.

One stream of a caller is one bidirectional gRPC stream of Triton. Its first inference request is
OPEN and carries voice and seed; its decoupled responses are the stream's chunks. TOKENS and END
follow under the same stream id and answer nothing. CLOSE ends OPEN early. When a client vanishes,
Triton marks OPEN as cancelled and the model closes the engine's stream by itself. A seed is an
unsigned 64-bit number that travels as the signed one with the same bits.
"""

from enum import IntEnum

MODEL_NAME = "parley_vocoder"

# Inputs.
STREAM = "STREAM"
OPERATION = "OPERATION"
TOKENS = "TOKENS"
PROMPT_TOKENS = "PROMPT_TOKENS"
PROMPT_MEL = "PROMPT_MEL"
SPEAKER = "SPEAKER"
SEED = "SEED"
FLOW_MODEL = "FLOW_MODEL"
WHOLE = "WHOLE"

# Outputs.
SAMPLES = "SAMPLES"
START = "START"
FINAL = "FINAL"
COMPUTE_SECONDS = "COMPUTE_SECONDS"

# Settings that the model reads from its config.pbtxt: the service's own, as JSON.
SETTINGS = "settings"


class Operation(IntEnum):
    """What an inference request asks for."""

    OPEN = 0
    TOKENS = 1
    END = 2
    CLOSE = 3


# name: (Triton data type, dimensions)
INPUTS: dict[str, tuple[str, list[int]]] = {
    STREAM: ("INT64", [1]),
    OPERATION: ("INT32", [1]),
    TOKENS: ("INT64", [-1]),
    PROMPT_TOKENS: ("INT64", [-1]),
    PROMPT_MEL: ("FP32", [-1, 80]),
    SPEAKER: ("FP32", [192]),
    SEED: ("INT64", [1]),
    FLOW_MODEL: ("INT32", [1]),
    WHOLE: ("INT32", [1]),
}
REQUIRED = (STREAM, OPERATION)
OUTPUTS: dict[str, tuple[str, list[int]]] = {
    SAMPLES: ("FP32", [-1]),
    START: ("INT64", [1]),
    FINAL: ("INT32", [1]),
    COMPUTE_SECONDS: ("FP32", [1]),
}
