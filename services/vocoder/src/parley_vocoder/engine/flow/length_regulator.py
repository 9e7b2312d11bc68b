"""Token rate to mel rate (spec section 4.3, step 5): linear interpolation, then convolutions.

Positions are fractions of a token, so a window in the middle of an utterance can be sampled at the
places it has in the whole (`streaming`), and a whole utterance exactly as the reference does it.
"""

import torch
from torch import Tensor, nn


def even_positions(tokens: int, frames: int, device: torch.device | None = None) -> Tensor:
    """Where `frames` evenly spread frames lie among `tokens` tokens (align_corners false).

    Returns:
        float32 `[frames]`, in tokens, within 0 .. tokens-1.
    """
    if frames == 0:
        return torch.zeros(0, device=device)
    step = tokens / frames
    place = (torch.arange(frames, dtype=torch.float32, device=device) + 0.5) * step - 0.5
    return place.clamp(0.0, max(tokens - 1, 0))


def sample_at(hidden: Tensor, positions: Tensor) -> Tensor:
    """Linear interpolation of `[B, T, C]` at `[F]` token positions: `[B, F, C]`."""
    left = positions.floor().long()
    right = (left + 1).clamp(max=hidden.shape[1] - 1)
    weight = (positions - left).to(hidden.dtype)[:, None]
    return hidden[:, left] * (1 - weight) + hidden[:, right] * weight


class LengthRegulator(nn.Module):
    """Blocks of conv k3, GroupNorm(1), Mish, then conv k1, over interpolated hidden states."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(blocks):
            layers += [
                nn.Conv1d(channels, channels, 3, padding=1),
                nn.GroupNorm(1, channels),
                nn.Mish(),
            ]
        layers.append(nn.Conv1d(channels, channels, 1))
        self.model = nn.Sequential(*layers)

    def forward(
        self, prompt: Tensor, prompt_positions: Tensor, new: Tensor, new_positions: Tensor
    ) -> Tensor:
        """Stretch the prompt and the new part separately, smooth them together.

        Args:
            prompt: `[B, P, C]` hidden states of the prompt tokens (P may be 0).
            prompt_positions: `[F1]` token positions of the prompt's mel frames.
            new: `[B, N, C]` hidden states of the new tokens.
            new_positions: `[F2]` token positions of the new mel frames.

        Returns:
            mu, `[B, C, F1+F2]`.
        """
        parts = [
            sample_at(hidden, positions)
            for hidden, positions in ((prompt, prompt_positions), (new, new_positions))
            if positions.shape[0]
        ]
        mu: Tensor = self.model(torch.cat(parts, dim=1).transpose(1, 2))
        return mu
