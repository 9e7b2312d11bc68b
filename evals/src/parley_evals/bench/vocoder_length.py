"""Minute 10 of one vocoder stream over minute 1, chunk by chunk in turns.

One stream is driven to minute 9; then its tenth minute and the first minute of a fresh stream run
in turns, window after window, through the same engine. Windows of the full size are compared: the
first few of a stream are smaller and dearer a second of sound.
"""

from collections.abc import Sequence

from parley_core.tokens import GROUP_SIZE
from parley_vocoder.contract import DecodeRequest, DecodeStream, FlowModel
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.torch_engine import TorchEngine
from parley_vocoder.windows import WindowSettings

from parley_evals.bench.material import GROUP_S, token_groups, voice
from parley_evals.bench.measure import Bound, Cost, Figure, Ratio, Target, Watch, median
from parley_evals.bench.seeded_weights import SeededWeights

MINUTE_GROUPS = round(60 / GROUP_S)


class _Listener:
    """One stream, asked for one chunk at a time."""

    def __init__(self, stream: DecodeStream, ids: Sequence[int]) -> None:
        self._stream = stream
        self._ids = ids
        self._chunks = aiter(stream)
        self._pushed = 0
        self.groups = 0

    async def chunk(self, groups: int, look_ahead: int) -> Cost:
        """Pushes what one chunk needs and waits for its sound."""
        until = (self.groups + groups + look_ahead) * GROUP_SIZE
        watch = Watch()
        await self._stream.push(self._ids[self._pushed : until])
        await anext(self._chunks)
        cost = watch.read()
        self._pushed, self.groups = until, self.groups + groups
        return cost


async def run(weights: SeededWeights) -> list[Figure]:
    """The ratio with its target."""
    windows = WindowSettings()
    ahead, full = windows.look_ahead, windows.ramp[-1]
    decoder = Decoder.load(weights.decoder)
    async with TorchEngine(lambda: {FlowModel.COMMON: decoder}) as engine:
        await engine.warm_up()
        ids = token_groups(10 * MINUTE_GROUPS, 0)
        request = DecodeRequest(voice(0, 0))
        async with engine.open(request) as old_stream, engine.open(request) as new_stream:
            old, new = _Listener(old_stream, ids), _Listener(new_stream, ids)
            for listener in (old, new):
                for groups in windows.ramp[:-1]:
                    await listener.chunk(groups, ahead)
            while old.groups < 9 * MINUTE_GROUPS:
                await old.chunk(full, ahead)
            tenth: list[Cost] = []
            first: list[Cost] = []
            while old.groups + full + ahead <= 10 * MINUTE_GROUPS:
                if len(tenth) % 2:
                    first.append(await new.chunk(full, ahead))
                    tenth.append(await old.chunk(full, ahead))
                else:
                    tenth.append(await old.chunk(full, ahead))
                    first.append(await new.chunk(full, ahead))
    return [
        Figure(
            "vocoder: minute 10 over minute 1",
            Ratio.of(tenth, first),
            Target(Bound.AT_MOST, 1.05),
            f"{median(tenth).cpu * 1e3:.1f} ms over {median(first).cpu * 1e3:.1f} ms of CPU "
            f"a chunk of {full * GROUP_S:.2f} s",
        )
    ]
