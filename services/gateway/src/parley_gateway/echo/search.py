"""Finding an echo: by how much it is late, and the short filter that makes it of what was sent.

Contract: pure arithmetic on windows of both sounds, a millisecond or two each. A delay is told only
where one stands out; whether there is an echo, the share of the filter's sound in what was heard
tells. Not for when to look (`canceller`).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from parley_gateway.echo.track import Samples

_STANDS_OUT = 7.0
"""Height of a match over the mean of all; the highest of as many by chance reaches four to five,
and six where two people speak."""
_SHRINK = 1e-4


class Fit(NamedTuple):
    """A filter.

    Attributes:
        taps: Float32.
        share: Of the power of what was heard that it explains.
        proven: The same of the last quarter, which it was not made from. Voices that have nothing
            to do with each other are alike for the length of a vowel, and no longer.
    """

    taps: Samples
    share: float
    proven: float


def best_match(heard: Samples, sent: Samples) -> int | None:
    """Where in `sent` lies what is most like `heard`, whatever the colours of the two.

    Returns:
        The place of the first sample; None where no place stands out.
    """
    # A circle of this length is enough: what wraps around lies behind the places that count.
    size = _smooth(len(sent))
    cross = np.fft.rfft(sent, size) * np.conj(np.fft.rfft(heard, size))
    weight = np.abs(cross)
    cross /= weight + 1e-3 * weight.max() + 1e-20
    match = np.fft.irfft(cross, size)[: len(sent) - len(heard) + 1]
    place = int(np.argmax(match))
    return place if match[place] > _STANDS_OUT * np.sqrt(power(match)) else None


def fit(heard: Samples, sent: Samples, taps: Samples) -> Fit:
    """The filter that makes `heard` of `sent`, by least squares over the first three quarters.

    Args:
        heard: float32 `[N]`.
        sent: float32 `[N + len(taps) - 1]`, up to the same sample.
        taps: What is known of it: where the sounds say nothing, it stays.
    """
    known = len(heard) * 3 // 4
    sent_then = sent[: known + len(taps) - 1]
    rest = heard[:known] - np.convolve(sent_then, taps, "valid")
    wanted = np.correlate(sent_then, rest, "valid")[::-1].astype(np.float64)
    products = _products(sent_then.astype(np.float64), known)
    products[np.diag_indices(len(taps))] += _SHRINK * products[0, 0] + 1e-9
    better = taps + np.linalg.solve(products, wanted).astype(np.float32)
    left = heard - np.convolve(sent, better, "valid")
    return Fit(better, _explained(heard, left), _explained(heard[known:], left[known:]))


def _explained(heard: Samples, left: Samples) -> float:
    return 1.0 - power(left) / (power(heard) + 1e-20)


def power(samples: npt.NDArray[np.floating]) -> float:
    """The mean square."""
    return float(np.dot(samples, samples)) / len(samples)


def _products(sent: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Products of all pairs of the signals of `length` samples that lie one sample apart in `sent`.

    The first row is computed; along each diagonal one sample enters and one leaves. A product of
    whole matrices would be simpler, and keep every core of the machine busy.
    """
    count = len(sent) - length + 1
    products = np.empty((count, count))
    products[0] = products[:, 0] = np.correlate(sent, sent[count - 1 :], "valid")[::-1]
    enters, leaves = sent[count - 2 :: -1], sent[length + count - 2 : length - 1 : -1]
    for row in range(count - 1):
        step = enters[row] * enters - leaves[row] * leaves
        products[row + 1, 1:] = products[row, :-1] + step
    return products


def _smooth(least: int) -> int:
    """A length of at least this for which a Fourier transform is quick."""
    power_of_two = 1 << (least - 1).bit_length()
    return next(
        size
        for size in sorted(power_of_two * part // 16 for part in (9, 10, 12, 15, 16))
        if size >= least
    )
