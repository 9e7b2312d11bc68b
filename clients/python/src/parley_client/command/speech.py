"""`parley say` and `parley transcribe`: single stages."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

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
from parley_client.command.console import check_target, clean, err, out, print_json, run
from parley_client.command.report import audio_json, audio_line, latency_line, latency_table
from parley_client.recording import Recording
from parley_client.speech import Speech
from parley_client.voices import Transcript


def say(
    text: Annotated[str, typer.Argument(help="What to say, with or without style tags.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="WAV file for the speech.")],
    voice: Annotated[str, typer.Option(help="Voice that speaks.")] = "",
    style: Annotated[
        list[str] | None, typer.Option(help="Style tag in front of the text; repeatable.")
    ] = None,
    strict_tags: Annotated[
        bool, typer.Option("--strict-tags", help="Refuse tags that are not known.")
    ] = False,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Makes the speech repeatable.")] = None,
    as_json: JsonOption = False,
    address: AddressOption = None,
    api_key: ApiKeyOption = None,
    tls: TlsOption = False,
    ca_file: CaOption = None,
    state: StateOption = DEFAULT_STATE,
    timeout: TimeoutOption = None,
) -> int:
    """Speak a text."""
    check_target(output)

    async def work() -> Speech:
        async with connect(address, state, api_key, tls, ca_file, timeout) as client:
            stream = client.synthesize(
                text,
                voice=voice,
                style_tags=tuple(style or ()),
                strict_tags=strict_tags,
                temperature=temperature,
                seed=seed,
            )
            async with stream:
                with err.status("Speaking"):
                    return await stream.collect()

    speech = run(work())
    speech.save(output)
    if as_json:
        print_json(
            {
                "voice": speech.voice,
                "tokens": {"audio": speech.usage.audio_output_tokens},
                "timings": speech.latency.to_json(),
                "audio": audio_json(speech.samples, speech.sample_rate, output),
            }
        )
    else:
        out.print(latency_table(speech.latency))
        out.print(latency_line(speech.latency))
        out.print(f"voice   {clean(speech.voice)}", markup=False)
        out.print(audio_line(speech.samples, speech.sample_rate, output), markup=False)
    return 0


def transcribe(
    recording: Annotated[Path, typer.Argument(help="Recording: WAV, FLAC, OGG ...")],
    as_json: JsonOption = False,
    address: AddressOption = None,
    api_key: ApiKeyOption = None,
    tls: TlsOption = False,
    ca_file: CaOption = None,
    state: StateOption = DEFAULT_STATE,
    timeout: TimeoutOption = None,
) -> int:
    """Write down a recording."""
    audio = Recording.read(recording)

    async def work() -> Transcript:
        async with connect(address, state, api_key, tls, ca_file, timeout) as client:
            with err.status("Listening"):
                return await client.recognize(audio)

    transcript = run(work())
    if as_json:
        print_json(asdict(transcript))
    else:
        out.print(clean(transcript.text), markup=False)
    return 0
