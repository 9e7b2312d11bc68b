"""`parley ask`: one question, its answer as it comes, and where the time went."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from parley_client.answer import Answer, AnswerEvent, AnswerStream, TextDelta, assemble
from parley_client.command.connection import (
    DEFAULT_STATE,
    AddressOption,
    ApiKeyOption,
    CaOption,
    JsonOption,
    StateOption,
    TimeoutOption,
    TlsOption,
    connect,
)
from parley_client.command.console import (
    UsageError,
    check_target,
    clean,
    err,
    out,
    print_json,
    run,
)
from parley_client.command.report import (
    STUB_NOTE,
    audio_json,
    audio_line,
    latency_line,
    latency_table,
    timings_json,
)
from parley_client.config import ConversationConfig, Function
from parley_client.recording import Recording
from parley_client.timeline.page import write_timeline


def ask(
    question: Annotated[
        Path | None, typer.Argument(help="Recorded question: WAV, FLAC, OGG ...")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="WAV file for the answer.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Written question, instead of a file.")] = None,
    voice: Annotated[str, typer.Option(help="Voice that answers.")] = "",
    style: Annotated[
        list[str] | None, typer.Option(help="Style tag for the answer, e.g. 高兴1; repeatable.")
    ] = None,
    system: Annotated[str, typer.Option(help="Persona and instructions.")] = "",
    functions: Annotated[
        Path | None,
        typer.Option(help="JSON list of functions: name, description, parameters (JSON schema)."),
    ] = None,
    session: Annotated[str, typer.Option(help="Session that the question belongs to.")] = "",
    seed: Annotated[int | None, typer.Option(min=0, help="Makes the answer repeatable.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Text tokens in the answer at most.")
    ] = None,
    text_only: Annotated[bool, typer.Option("--text-only", help="Make no speech.")] = False,
    timeline: Annotated[
        Path | None, typer.Option(help="HTML file for a picture of the turn.")
    ] = None,
    as_json: JsonOption = False,
    address: AddressOption = None,
    api_key: ApiKeyOption = None,
    tls: TlsOption = False,
    ca_file: CaOption = None,
    state: StateOption = DEFAULT_STATE,
    timeout: TimeoutOption = None,
) -> int:
    """Ask one question, spoken or written, and hear the answer."""
    if (question is None) == (text is None):
        raise UsageError("give either a recorded question or --text")
    if text_only and output is not None:
        raise UsageError("--text-only makes no audio for --output")
    for path in (output, timeline):
        check_target(path)
    recording = Recording.read(question) if question is not None else None
    config = ConversationConfig(
        voice=voice,
        style_tags=tuple(style or ()),
        system_prompt=system,
        functions=_functions(functions),
        temperature=temperature,
        max_output_tokens=max_tokens,
        seed=seed,
    )

    async def work() -> Answer:
        async with connect(address, state, api_key, tls, ca_file, timeout) as client:
            stream = client.ask(
                recording, text=text, session=session, config=config, text_only=text_only
            )
            async with stream:
                return await _show(stream, quiet=as_json)

    answer = run(work())
    if output is not None:
        answer.save(output)
    if timeline is not None:
        write_timeline(timeline, answer, recording, text)
    if as_json:
        print_json(_json(answer, output, timeline))
    else:
        _report(answer, output, timeline)
    return 0


async def _show(stream: AnswerStream, *, quiet: bool) -> Answer:
    """Reads the answer; prints its text as it comes."""
    events: list[AnswerEvent] = []
    if quiet:
        return await stream.collect()
    shown = False
    try:
        with err.status("Waiting for the answer") as status:
            async for event in stream:
                events.append(event)
                if isinstance(event, TextDelta):
                    if not shown:
                        status.stop()
                        out.print("answer  ", style="bold", end="")
                        shown = True
                    out.print(clean(event.text), markup=False, end="")
    finally:
        # The line of an error that comes now has a line of its own.
        if shown:
            out.print()
    return assemble(events)


def _report(answer: Answer, output: Path | None, timeline: Path | None) -> None:
    finished = answer.finished
    heard = Text("heard   ", style="bold")
    if finished.heard:
        heard.append(clean(finished.heard), style="not bold")
    else:
        heard.append("no transcript", style="not bold dim")
    out.print(heard)
    for call in answer.function_calls:
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        out.print(f"calls   {clean(call.name)}({clean(arguments)})", markup=False)
    if finished.stub_weights:
        err.print(STUB_NOTE, style="yellow")
    if finished.status != "COMPLETED":
        err.print(f"The answer ended as {finished.status}.", style="yellow")
    out.print()
    out.print(latency_table(finished.latency))
    out.print(latency_line(finished.latency))
    usage = finished.usage
    out.print(
        f"tokens  question {answer.started.question_tokens}, prompt {usage.prompt_tokens} "
        f"({usage.cached_tokens} cached), answer {usage.output_tokens} text, "
        f"{usage.audio_output_tokens} audio"
    )
    out.print(f"session {answer.started.session}", markup=False)
    if len(answer.samples):
        out.print(audio_line(answer.samples, answer.started.sample_rate, output), markup=False)
    if timeline is not None:
        out.print(f"{timeline}  timeline", markup=False)


def _json(answer: Answer, output: Path | None, timeline: Path | None) -> dict[str, Any]:
    finished, started = answer.finished, answer.started
    return {
        "heard": finished.heard,
        "answer": finished.text,
        "status": finished.status,
        "stub_weights": finished.stub_weights,
        "function_calls": [
            {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}
            for call in answer.function_calls
        ],
        "session": started.session,
        "turn_id": started.turn_id,
        "question": {"tokens": started.question_tokens, "duration_s": started.question_s},
        "tokens": {
            "prompt": finished.usage.prompt_tokens,
            "cached": finished.usage.cached_tokens,
            "prompt_audio": finished.usage.audio_tokens,
            "answer_text": finished.usage.output_tokens,
            "answer_audio": finished.usage.audio_output_tokens,
        },
        "timings": timings_json(answer),
        "audio": audio_json(answer.samples, started.sample_rate, output)
        if len(answer.samples)
        else None,
        "timeline": str(timeline) if timeline else None,
    }


def _functions(path: Path | None) -> tuple[Function, ...]:
    if path is None:
        return ()
    try:
        declared = json.loads(path.read_text(encoding="utf-8"))
        functions = tuple(Function(**each) for each in declared)
        for each in functions:
            each.to_proto()
        return functions
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(
            f"{path} is not a JSON list of objects with name, description, parameters: {error}"
        ) from None
