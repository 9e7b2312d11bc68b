"""Level of live streams.

The reference scales a whole recording to its peak before tokenizing; a stream does not know its
peak yet. Scaling each block to its own peak would lift silence to full scale and pump with every
word, so it is not offered. The choices are:

- ``keep``: samples pass as they are. This is what the reference's own streaming call does, and the
  only choice whose linguistic codes equal it exactly. The default.
- `RunningPeak`: scale to the loudest sample so far. It comes closest to what the models saw in
  training when microphones are quiet; codes of the first loud block differ from the offline ones,
  later ones approach them. Neither branch is blind to level: CMVN and the log-mel scale shift with
  it.

Not for whole recordings: see `parley_tokenizer.wave`.
"""

import numpy as np

from parley_tokenizer.wave import PEAK, Wave

_RAMP_SAMPLES = 160


class RunningPeak:
    """Scales a stream to the loudest sample since it began; the gain only ever falls.

    Args:
        assumed_peak: peak that is assumed until a louder sample comes; it bounds the gain.
    """

    def __init__(self, assumed_peak: float = 0.1) -> None:
        self._peak = np.float32(assumed_peak)

    def apply(self, block: Wave) -> Wave:
        """Scales the next block, ``[N]``; a change of gain is spread over 10 ms."""
        if not len(block):
            return block
        before = PEAK / self._peak
        self._peak = np.maximum(self._peak, np.abs(block).max())
        gain = np.full(len(block), PEAK / self._peak, dtype=np.float32)
        ramp = min(_RAMP_SAMPLES, len(block))
        gain[:ramp] = np.linspace(before, PEAK / self._peak, ramp, dtype=np.float32)
        scaled: Wave = np.clip(block * gain, -1.0, 1.0)
        return scaled
