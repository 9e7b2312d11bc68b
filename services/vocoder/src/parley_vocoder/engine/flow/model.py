"""The flow model of a v1 decoder: everything in `flow.pt` (spec section 4.3).

The mixed dual-code stream is consumed as it is: one embedding table over ids 0..5119, no
de-interleaving. Not for: noise, step loops, windows; those belong to the callers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parley_vocoder.config import FlowConfig
from parley_vocoder.engine.flow.encoder import ConformerEncoder
from parley_vocoder.engine.flow.estimator import Estimator
from parley_vocoder.engine.flow.length_regulator import LengthRegulator, even_positions
from parley_vocoder.engine.flow.solver import Trajectory


class FlowMatching(nn.Module):
    """Holder of the estimator under the name of the checkpoint (`decoder.estimator`)."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.estimator = Estimator(config.estimator)


class Flow(nn.Module):
    """Tokens and voice to the start of a trajectory."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.spk_embed_dim, config.output_size)
        self.encoder = ConformerEncoder(config.encoder)
        self.encoder_proj = nn.Linear(config.encoder.output_size, config.output_size)
        self.length_regulator = LengthRegulator(config.regulator_channels, config.regulator_blocks)
        self.decoder = FlowMatching(config)

    @property
    def estimator(self) -> Estimator:
        """The velocity network."""
        return self.decoder.estimator

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the flow computes in."""
        return self.encoder_proj.weight.dtype

    def speaker(self, embedding: Tensor) -> Tensor:
        """`[192]` speaker embedding, any scale, to `[80]`."""
        speaker: Tensor = self.spk_embed_affine_layer(F.normalize(embedding.to(self.dtype), dim=0))
        return speaker

    @torch.inference_mode()
    def start(
        self,
        prompt_tokens: Tensor,
        tokens: Tensor,
        prompt_mel: Tensor,
        speaker: Tensor,
        noise: Tensor,
        positions: Tensor,
    ) -> Trajectory:
        """Condition a window and place it at its noise.

        Args:
            prompt_tokens: int64 `[P]` ids of the voice prompt, P may be 0.
            tokens: int64 `[N]` ids of the window.
            prompt_mel: `[80, F1]` mel of the voice prompt; F1 is 0 exactly when P is.
            speaker: `[80]` from `speaker`.
            noise: `[80, F1+F2]` standard normal.
            positions: `[F2]` token positions, within the window, of its mel frames.

        Returns:
            The trajectory at step 0, F1+F2 frames.
        """
        # The reference clamps: an id below the audio range reads as code 0.
        ids = torch.cat([prompt_tokens, tokens]).clamp(min=0)
        hidden = self.encoder_proj(self.encoder(self.input_embedding(ids)[None]))
        prompt_frames = prompt_mel.shape[1]
        prompt_positions = even_positions(len(prompt_tokens), prompt_frames, hidden.device)
        mu = self.length_regulator(
            hidden[:, : len(prompt_tokens)],
            prompt_positions,
            hidden[:, len(prompt_tokens) :],
            positions,
        )[0]
        cond = torch.zeros(mu.shape, dtype=torch.float32, device=mu.device)
        cond[:, :prompt_frames] = prompt_mel
        return Trajectory(x=noise.to(self.dtype), mu=mu, spks=speaker, cond=cond)
