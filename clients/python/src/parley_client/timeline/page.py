"""The page of one turn: stages, arrivals, playback, waveforms, the table of latencies.

Two clocks meet here. The spans are the gateway's, starting when it has the question; arrivals are
this machine's, starting when the question was sent. They are drawn from one zero: their distance is
the time that the question took to travel, and the page says so.
"""

import base64
import io
import os
import wave
from collections.abc import Iterator
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from parley_client.answer import Answer, AudioChunk, TextDelta
from parley_client.errors import BadRecording
from parley_client.latency import Stage
from parley_client.recording import Recording
from parley_client.timeline.drawing import Mark, Row, Span, axis_over, chart, waveform

_TITLES = {
    "tokenizer": "tokenizer",
    "context": "asr-context",
    "chat": "chat-llm",
    "tts": "tts",
    "vocoder": "vocoder",
}


def write_timeline(
    path: str | os.PathLike[str], answer: Answer, question: Recording | None, text: str | None
) -> None:
    """Writes the page.

    Args:
        path: HTML file.
        answer: the whole answer.
        question: the spoken question, if it was one.
        text: the written question, if it was one.

    Raises:
        BadRecording: FILE_UNWRITABLE.
    """
    try:
        Path(path).write_text(render(answer, question, text), encoding="utf-8")
    except OSError as error:
        raise BadRecording(
            f"cannot write {path}: {error.strerror}", reason="FILE_UNWRITABLE"
        ) from None


def render(answer: Answer, question: Recording | None, text: str | None) -> str:
    """The page as text."""
    template = Template(
        resources.files("parley_client.timeline").joinpath("page.html").read_text(encoding="utf-8")
    )
    finished = answer.finished
    rows = [_stage_row(stage) for stage in finished.latency.stages]
    rows.extend(_arrival_rows(answer))
    moments = [span.end_s for row in rows for span in row.spans]
    moments += [span.start_s for row in rows for span in row.spans]
    marks = (
        [Mark(finished.latency.first_audio_s, f"first audio {_ms(finished.latency.first_audio_s)}")]
        if finished.latency.first_audio_s
        else []
    )
    waves = []
    if question is not None:
        waves.append(waveform(*question.samples(), "wave-question", "question"))
    if len(answer.samples):
        rate = answer.started.sample_rate
        waves.append(waveform(answer.samples / 32768, rate, "wave-answer", "answer"))
    heard = finished.heard or text or "no transcript"
    return template.substitute(
        asked=escape(heard),
        answered=escape(finished.text or "no text"),
        note=_note(answer),
        facts="".join(_fact(*each) for each in _facts(answer)),
        chart=chart(rows, marks, axis_over(moments)),
        waves="".join(waves),
        player=_player(answer),
        table="".join(_table_row(stage) for stage in finished.latency.stages),
        session=escape(answer.started.session),
        turn=escape(answer.started.turn_id),
    )


def _stage_row(stage: Stage) -> Row:
    title = _TITLES.get(stage.name, stage.name)
    count = f"{stage.outputs:,} {stage.unit}" if stage.unit else ""
    return Row(
        title,
        (
            Span(
                stage.start_s,
                stage.first_output_s,
                "waiting",
                f"{title}: {_ms(stage.first_output_s - stage.start_s)} to its first output",
            ),
            Span(
                stage.first_output_s,
                stage.end_s,
                "working",
                f"{title}: puts out {count or 'its answer'} "
                f"in {_ms(stage.end_s - stage.first_output_s)}",
            ),
        ),
        count,
    )


def _arrival_rows(answer: Answer) -> Iterator[Row]:
    texts = [each for each in answer.events if isinstance(each, TextDelta)]
    chunks = [each for each in answer.events if isinstance(each, AudioChunk)]
    if texts:
        spans = tuple(
            Span(
                each.received_s, each.received_s, "text", f"{each.text!r} at {_ms(each.received_s)}"
            )
            for each in texts
        )
        yield Row("text arrives", spans, f"{len(texts)} pieces")
    if not chunks:
        return
    rate = answer.started.sample_rate
    yield Row(
        "audio arrives",
        tuple(
            Span(
                each.received_s,
                each.received_s,
                "audio",
                f"{_ms(len(each.samples) / rate)} of audio at {_ms(each.received_s)}",
            )
            for each in chunks
        ),
        f"{len(chunks)} pieces",
    )
    yield Row("plays", tuple(_playback(chunks, rate)), f"{answer.duration_s:.2f} s")


def _playback(chunks: list[AudioChunk], rate: int) -> Iterator[Span]:
    """When each piece would sound, played as soon as it is there and its turn has come."""
    free = chunks[0].received_s
    for chunk in chunks:
        length = len(chunk.samples) / rate
        if chunk.received_s > free + 0.001:
            yield Span(free, chunk.received_s, "gap", f"silence of {_ms(chunk.received_s - free)}")
        begin = max(free, chunk.received_s)
        yield Span(
            begin, begin + length, "plays", f"plays from {_ms(begin)} to {_ms(begin + length)}"
        )
        free = begin + length


def _facts(answer: Answer) -> Iterator[tuple[str, str]]:
    latency, usage = answer.finished.latency, answer.finished.usage
    if latency.first_audio_s:
        yield _ms(latency.first_audio_s), "to the first audio"
    yield _ms(latency.total_s), "to the last audio"
    yield f"{answer.duration_s:.2f} s", "of speech"
    if answer.duration_s and latency.total_s:
        yield f"{latency.total_s / answer.duration_s:.2f}", "real-time factor"
    yield f"{answer.started.question_tokens}", "question tokens"
    yield f"{usage.output_tokens} + {usage.audio_output_tokens}", "text + audio tokens out"


def _fact(value: str, title: str) -> str:
    return f"<li><b>{escape(value)}</b><span>{escape(title)}</span></li>"


def _table_row(stage: Stage) -> str:
    cells = [
        _TITLES.get(stage.name, stage.name),
        *(f"{1000 * each:.1f}" for each in (stage.start_s, stage.first_output_s, stage.end_s)),
        f"{stage.outputs:,} {stage.unit}" if stage.unit else "",
    ]
    return "<tr>" + "".join(f"<td>{escape(each)}</td>" for each in cells) + "</tr>"


def _note(answer: Answer) -> str:
    if not answer.finished.stub_weights:
        return ""
    return (
        '<p class="stub">The models are random numbers (seeded stub weights): '
        "words and sound mean nothing. Times and counts are real.</p>"
    )


def _player(answer: Answer) -> str:
    if not len(answer.samples):
        return ""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(answer.started.sample_rate)
        file.writeframes(answer.samples.astype("<i2").tobytes())
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls src="data:audio/wav;base64,{data}"></audio>'


def _ms(value_s: float) -> str:
    return f"{1000 * value_s:.0f} ms" if abs(value_s) < 10 else f"{value_s:.1f} s"
