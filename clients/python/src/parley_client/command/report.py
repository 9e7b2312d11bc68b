"""Tables and figures that several commands print."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from parley_client.answer import Answer, AudioChunk, TextDelta
from parley_client.latency import Latency
from parley_client.recording import Samples

STUB_NOTE = (
    "These models are random numbers (seeded stub weights): "
    "the words mean nothing, heard or answered; the sound is speech-shaped noise."
)

_FULL_SCALE = 32768
_BAR = 16


def audio_json(samples: Samples, sample_rate: int, path: Path | None) -> dict[str, Any]:
    """Facts of mono int16 samples ``[n]``; peak and RMS as a share of full scale."""
    level = samples.astype(np.float64) / _FULL_SCALE
    return {
        "path": str(path) if path else None,
        "encoding": "PCM_S16LE",
        "channels": 1,
        "sample_rate": sample_rate,
        "samples": len(samples),
        "duration_s": len(samples) / sample_rate,
        "peak": float(np.abs(level).max(initial=0.0)),
        "rms": float(np.sqrt(np.mean(level**2))) if len(samples) else 0.0,
        "clipped_samples": int(np.count_nonzero(np.abs(samples.astype(np.int32)) >= 32767)),
    }


def audio_line(samples: Samples, sample_rate: int, path: Path | None) -> str:
    """Facts of the audio for people."""
    facts = audio_json(samples, sample_rate, path)
    peak = facts["peak"]
    decibels = f"{20 * math.log10(peak):.1f} dBFS" if peak else "silent"
    clipped = f"  {facts['clipped_samples']} samples clipped" if facts["clipped_samples"] else ""
    name = str(path) if path else "audio (not saved; -o FILE saves it)"
    form = f"{facts['duration_s']:.2f} s  {sample_rate} Hz mono PCM16"
    return f"{name}  {form}  peak {peak:.3f} ({decibels}){clipped}"


def timings_json(answer: Answer) -> dict[str, Any]:
    """Times of the gateway's clock, and when things arrived here."""
    text = next((each.received_s for each in answer.events if isinstance(each, TextDelta)), None)
    audio = next((each.received_s for each in answer.events if isinstance(each, AudioChunk)), None)
    return {
        **answer.finished.latency.to_json(),
        "client": {
            "first_text_s": text,
            "first_audio_s": audio,
            "total_s": answer.finished.received_s,
        },
    }


def latency_table(latency: Latency) -> Table:
    """Where the time went, one row a stage, in milliseconds since the question was complete."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", no_wrap=True)
    for title in ("start ms", "first output ms", "end ms", "output"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    ends = [latency.total_s, *(stage.end_s for stage in latency.stages)]
    whole = max(ends, default=0.0) or 1.0
    for stage in latency.stages:
        table.add_row(
            stage.name,
            *(f"{1000 * each:.0f}" for each in (stage.start_s, stage.first_output_s, stage.end_s)),
            f"{stage.outputs} {stage.unit}" if stage.unit else "",
            _bar(stage.start_s, stage.first_output_s, stage.end_s, whole),
        )
    return table


def latency_line(latency: Latency) -> str:
    """When the caller heard something, and when all was sent."""
    first = f"first audio {1000 * latency.first_audio_s:.0f} ms, " if latency.first_audio_s else ""
    return f"sent    {first}last {1000 * latency.total_s:.0f} ms after the question"


def _bar(start: float, first: float, end: float, whole: float) -> Text:
    """Waiting for the first output drawn light, putting out drawn solid."""
    edges = [round(_BAR * min(max(each, 0.0), whole) / whole) for each in (start, first, end)]
    waiting, busy = max(0, edges[1] - edges[0]), max(0, edges[2] - edges[1])
    bar = Text(" " * edges[0])
    bar.append("░" * waiting, style="cyan")
    bar.append("█" * (busy or (0 if waiting else 1)), style="cyan")
    return bar
