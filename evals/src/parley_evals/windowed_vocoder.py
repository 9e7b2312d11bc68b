"""How far the vocoder's windows are from decoding the whole, over their context.

`python -m parley_evals.windowed_vocoder [--weights FOLDER]` prints, for each left context and
look-ahead, the distances of `parley_vocoder.measure`. Without a folder the weights are seeded ones:
then the figures tell how the windows join, not how a trained voice sounds. The first row is the
whole with another seed: the distance of two equally good takes.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from parley_vocoder.contract import AudioChunk, FlowModel, VoiceConditioning
from parley_vocoder.decoder import Decoder
from parley_vocoder.measure import Distance, distance
from parley_vocoder.noise import SeededNoise
from parley_vocoder.offline import decode_whole, run_alone
from parley_vocoder.seeded import write_seeded
from parley_vocoder.streaming import WindowedDecode
from parley_vocoder.windows import WindowSettings
from rich.console import Console
from rich.table import Table

from parley_evals.bench.material import GROUP_S, token_groups, voice

LEFT_GROUPS = (0, 3, 6, 12, 24)
AHEAD_GROUPS = (1, 2, 4)
UTTERANCES = 2
UTTERANCE_S = 10.0
PROMPT_S = 3.0


def in_windows(
    decoder: Decoder,
    conditioning: VoiceConditioning,
    ids: Sequence[int],
    seed: int,
    settings: WindowSettings,
) -> list[AudioChunk]:
    """The chunks of a stream; what arrives when does not matter to them."""
    prepared = decoder.voice(conditioning, settings.max_prompt_frames)
    decode = WindowedDecode(decoder, prepared, SeededNoise(seed), settings)
    decode.push(ids)
    decode.end()
    return run_alone(decoder, decode)


def measure(decoder: Decoder) -> Table:
    """One row a plan, medians over the utterances."""
    groups = round(UTTERANCE_S / GROUP_S)
    utterances = [(voice(PROMPT_S, seed), token_groups(groups, seed)) for seed in range(UTTERANCES)]
    wholes = [
        decode_whole(decoder, decoder.voice(speaker), ids, SeededNoise(seed))
        for seed, (speaker, ids) in enumerate(utterances)
    ]
    rows = Table("left", "look-ahead", "log-mel dB", "level dB", "at joins dB", "step at joins")
    takes = [
        decode_whole(decoder, decoder.voice(speaker), ids, SeededNoise(seed + UTTERANCES))
        for seed, (speaker, ids) in enumerate(utterances)
    ]
    another = [
        distance([take], whole, decoder.config.mel)
        for take, whole in zip(takes, wholes, strict=True)
    ]
    _add(rows, ("whole", "another seed"), another, with_joins=False)
    for left, ahead in itertools.product(LEFT_GROUPS, AHEAD_GROUPS):
        settings = WindowSettings(left_context=left, look_ahead=ahead)
        distances = [
            distance(
                in_windows(decoder, speaker, ids, seed, settings), wholes[seed], decoder.config.mel
            )
            for seed, (speaker, ids) in enumerate(utterances)
        ]
        _add(rows, (f"{left * GROUP_S:.2f} s", f"{ahead * GROUP_S:.2f} s"), distances)
    return rows


def _add(
    rows: Table, names: tuple[str, str], distances: Sequence[Distance], *, with_joins: bool = True
) -> None:
    joins = [
        f"{statistics.median(each.join_log_mel_db for each in distances):.2f}",
        f"{statistics.median(each.join_step for each in distances):.2f}",
    ]
    rows.add_row(
        *names,
        f"{statistics.median(each.log_mel_db for each in distances):.2f}",
        f"{statistics.median(each.loudness_db for each in distances):+.2f}",
        *(joins if with_joins else ["", ""]),
    )


def main(arguments: list[str]) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m parley_evals.windowed_vocoder")
    parser.add_argument("--weights", type=Path, help="a CosyVoice folder; default: seeded weights")
    chosen = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    if chosen.weights:
        console.print(measure(Decoder.load(chosen.weights)))
        return 0
    with tempfile.TemporaryDirectory(prefix="parley-seeded-") as folder:
        write_seeded(Path(folder))
        console.print(measure(Decoder.load(Path(folder) / FlowModel.COMMON.value)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
