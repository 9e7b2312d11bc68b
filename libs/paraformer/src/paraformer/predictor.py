"""CIF predictor: how many tokens a run of encoder frames holds, and an embedding for each.

Contract: each frame gets a weight in 0..1; weights are added up from left to right, and whenever
the sum reaches the threshold a token fires, whose embedding is the weighted sum of the frames since
the last one. What is left over, as one frame and its weight, goes into the next chunk, so a chunk
costs the same at any point of a stream. Not for timestamps better than a frame (60 ms).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from paraformer.decoding_config import PredictorConfig


@dataclass
class CifCache:
    """What has not fired yet in one stream.

    Attributes:
        weight: float32, sum of the weights since the last token.
        hidden: ``[size]`` float32, weighted mean of the frames since then.
    """

    weight: np.float32
    hidden: Tensor


@dataclass(frozen=True)
class Fired:
    """Tokens of one chunk.

    Attributes:
        embeddings: ``[N, size]`` float32.
        rows: for each token, the row of the chunk at which it fired; -1 for the carried frame.
    """

    embeddings: Tensor
    rows: list[int]


class CifPredictor(nn.Module):
    """The predictor. Parameter names equal those of the checkpoint below ``predictor.``."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.cif_conv1d = nn.Conv1d(
            config.size, config.size, config.left_order + config.right_order + 1
        )
        self.cif_output = nn.Linear(config.size, 1)

    def new_cache(self) -> CifCache:
        """State at the start of an utterance."""
        return CifCache(np.float32(0), self.cif_output.weight.new_zeros(self.config.size))

    @torch.inference_mode()
    def weights(self, hidden: Tensor) -> Tensor:
        """Weight of each frame.

        Args:
            hidden: ``[T, size]``.

        Returns:
            ``[T]``, not negative.
        """
        config = self.config
        padded = nn.functional.pad(hidden.T, (config.left_order, config.right_order))
        context = torch.relu(self.cif_conv1d(padded)).T
        weights = torch.sigmoid(self.cif_output(context)[:, 0])
        return torch.relu(weights * config.smooth_factor - config.noise_threshold)

    @torch.inference_mode()
    def forward_chunk(
        self, hidden: Tensor, ready: int, cache: CifCache, *, final: bool = False
    ) -> Fired:
        """Adds up the weights of a chunk and advances the cache in place.

        Args:
            hidden: ``[T, size]`` encoder frames. Those from ``ready`` on are look-ahead: they are
                seen by the convolution only, and come again at the head of the next chunk.
            ready: frames that count.
            cache: state of the stream.
            final: nothing follows; a tail weight lets a token fire that is almost complete.
        """
        config = self.config
        weights = self.weights(hidden)
        weights[ready:] = 0
        rows = [cache.hidden[None], hidden]
        added = [np.array([cache.weight]), weights.cpu().numpy()]
        if final:
            rows.append(hidden.new_zeros(1, config.size))
            added.append(np.array([config.tail_threshold], np.float32))
        shares, rest, cache.weight = _integrate(np.concatenate(added), np.float32(config.threshold))
        frames = torch.cat(rows)
        left_over = torch.from_numpy(rest).to(frames) @ frames
        cache.hidden = left_over / float(cache.weight) if cache.weight > 0 else left_over
        if not shares:
            return Fired(hidden.new_zeros(0, config.size), [])
        matrix = torch.from_numpy(np.stack(shares)).to(frames)
        last = [int(np.flatnonzero(share)[-1]) if share.any() else 0 for share in shares]
        return Fired(matrix @ frames, [min(row, hidden.shape[0]) - 1 for row in last])


def _integrate(
    weights: np.ndarray[tuple[int], np.dtype[np.float32]], threshold: np.float32
) -> tuple[list[np.ndarray], np.ndarray, np.float32]:
    """Splits weights ``[T]`` into tokens, in float32 and in order, as rounding decides ties.

    Returns:
        The share ``[T]`` that each token has in each frame, the share that is left over, its sum.
    """
    shares: list[np.ndarray] = []
    share = np.zeros_like(weights)
    total = np.float32(0)
    for row, weight in enumerate(weights):
        if weight + total < threshold:
            total += weight
            share[row] += weight
        else:
            share[row] += threshold - total
            shares.append(share)
            total = total + weight - threshold
            share = np.zeros_like(weights)
            share[row] = total
    return shares, share, total
