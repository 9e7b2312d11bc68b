"""`parley talk`: a conversation in a terminal."""

import asyncio
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from parley_client.client import Client
from parley_client.command.connection import (
    DEFAULT_STATE,
    AddressOption,
    ApiKeyOption,
    CaOption,
    JsonOption,
    StateOption,
    TlsOption,
    connect,
)
from parley_client.command.console import UsageError, check_target, clean, out, print_json, run
from parley_client.command.talk_screen import TalkScreen
from parley_client.config import ConversationConfig, TurnPolicy
from parley_client.recording import Recording
from parley_client.sessions import Turn
from parley_client.talk import RATE
from parley_client.talk.conversing import Conversing
from parley_client.talk.dialogue import Called, Dialogue, Noted, Remark, Reply, UserSaid
from parley_client.talk.functions import Program, read_programs
from parley_client.talk.microphone import DeviceMicrophone, FileMicrophone, Microphone


def talk(
    wav: Annotated[
        Path | None,
        typer.Option(help="Recording to speak: WAV, FLAC, OGG ... Default: the microphone."),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Speak the recording as fast as the server listens, pauses too."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="WAV file: the user left, the agent right."),
    ] = None,
    voice: Annotated[str, typer.Option(help="Voice that answers.")] = "",
    style: Annotated[
        list[str] | None, typer.Option(help="Style tag for every answer, e.g. 高兴1; repeatable.")
    ] = None,
    system: Annotated[str, typer.Option(help="Persona and instructions.")] = "",
    functions: Annotated[
        Path | None,
        typer.Option(
            help="JSON list of functions: name, description, parameters (JSON schema), run "
            "(program and arguments; it reads JSON and prints the result)."
        ),
    ] = None,
    session: Annotated[str, typer.Option(help="Session to go on with.")] = "",
    eagerness: Annotated[
        Literal["low", "medium", "high", "auto"] | None,
        typer.Option(help="How quickly a pause ends a turn."),
    ] = None,
    silence: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds of silence that end a turn.")
    ] = None,
    headphones: Annotated[
        bool, typer.Option("--headphones", help="The microphone does not hear the agent.")
    ] = False,
    no_interruption: Annotated[
        bool, typer.Option("--no-interruption", help="Talking does not interrupt the agent.")
    ] = False,
    no_speculation: Annotated[
        bool, typer.Option("--no-speculation", help="Begin no answer before the turn has ended.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Makes answers repeatable.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Text tokens in an answer at most.")
    ] = None,
    as_json: JsonOption = False,
    address: AddressOption = None,
    api_key: ApiKeyOption = None,
    tls: TlsOption = False,
    ca_file: CaOption = None,
    state: StateOption = DEFAULT_STATE,
) -> int:
    """Hold a conversation. Ctrl-C hangs up; then the history is printed as it was heard."""
    if fast and wav is None:
        raise UsageError("--fast is for --wav")
    check_target(output)
    programs = _programs(functions)
    config = ConversationConfig(
        voice=voice,
        style_tags=tuple(style or ()),
        system_prompt=system,
        functions=tuple(each.function for each in programs.values()),
        turn_policy=TurnPolicy(
            eagerness=eagerness,
            end_of_turn_silence_s=silence,
            # What a file says does not come from a loudspeaker.
            echo_cancelled=headphones or wav is not None,
            no_interruption=no_interruption,
            no_speculation=no_speculation,
        ),
        temperature=temperature,
        max_output_tokens=max_tokens,
        seed=seed,
    )
    microphone: Microphone = (
        FileMicrophone(Recording.read(wav), fast=fast) if wav is not None else DeviceMicrophone()
    )
    dialogue = Dialogue()

    async def work() -> tuple[Conversing, list[Turn]]:
        async with connect(address, state, api_key, tls, ca_file) as client:
            conversing = Conversing(
                client, microphone, dialogue, config=config, session=session, programs=programs
            )
            try:
                await _hold(conversing, dialogue, quiet=as_json)
                return conversing, await _history(client, dialogue.session)
            finally:
                # However it ended: what was said and heard is not lost with the connection.
                if output is not None and dialogue.session:
                    conversing.tape.save(output)

    conversing, turns = run(work())
    if as_json:
        print_json(_json(dialogue, turns, conversing, output))
    else:
        _report(dialogue, turns, conversing, output)
    return 0


async def _hold(conversing: Conversing, dialogue: Dialogue, *, quiet: bool) -> None:
    loop = asyncio.get_running_loop()
    # Signals reach the main thread only; elsewhere nobody can press Ctrl-C.
    if threading.current_thread() is threading.main_thread():
        # Once to hang up; a second time ends the command as anywhere else.
        loop.add_signal_handler(signal.SIGINT, _hang_up, conversing, loop)
    try:
        if quiet:
            await conversing.run()
            return
        with TalkScreen(dialogue, lambda: conversing.tape.duration_s) as screen:
            dialogue.tell, dialogue.changed = screen.show, screen.refresh
            await conversing.run()
    finally:
        if threading.current_thread() is threading.main_thread():
            loop.remove_signal_handler(signal.SIGINT)


def _hang_up(conversing: Conversing, loop: asyncio.AbstractEventLoop) -> None:
    loop.remove_signal_handler(signal.SIGINT)
    conversing.hang_up()


async def _history(client: Client, session: str) -> list[Turn]:
    return await client.turns(session) if session else []


def _report(
    dialogue: Dialogue, turns: list[Turn], conversing: Conversing, output: Path | None
) -> None:
    out.print()
    table = Table(
        title="What was heard", title_justify="left", box=None, pad_edge=False, header_style="dim"
    )
    for title in ("turn", "you", "agent", "status"):
        table.add_column(title, overflow="fold")
    for number, turn in enumerate(turns, 1):
        said = turn.user_text or ("(being transcribed)" if turn.transcript_pending else "")
        table.add_row(
            str(number),
            Text(clean(said)),
            Text(clean(turn.heard_text)),
            turn.status.lower(),
        )
    out.print(table if turns else "Nothing was said.", soft_wrap=False)
    out.print(f"session {dialogue.session}", markup=False)
    if output is not None:
        out.print(
            f"{output}  {conversing.tape.duration_s:.2f} s  {RATE} Hz PCM16, "
            "the user left, the agent right",
            markup=False,
        )


def _json(
    dialogue: Dialogue, turns: list[Turn], conversing: Conversing, output: Path | None
) -> dict[str, Any]:
    return {
        "session": dialogue.session,
        "remarks": [_remark_json(each) for each in dialogue.remarks],
        "turns": [
            {**asdict(each), "create_time": each.create_time and each.create_time.isoformat()}
            for each in turns
        ],
        "audio": {
            "path": str(output) if output else None,
            "sample_rate": RATE,
            "duration_s": conversing.tape.duration_s,
        },
    }


def _remark_json(remark: Remark) -> dict[str, Any]:
    match remark:
        case UserSaid(turn_id, text):
            return {"kind": "user", "turn_id": turn_id, "text": text}
        case Called(call_id, name, arguments):
            return {"kind": "call", "call_id": call_id, "name": name, "arguments": arguments}
        case Noted(text, reason):
            return {"kind": "note", "text": text, "reason": reason}
        case Reply():
            return {
                "kind": "reply",
                "response_id": remark.response_id,
                "turn_id": remark.turn_id,
                "speculative": remark.speculative,
                "text": remark.text,
                "status": remark.status,
                "played_s": remark.played_s,
                "interruption": remark.interruption or None,
                "heard_text": remark.heard_text if remark.interruption else remark.text,
                "problem": remark.problem or None,
                "latency": remark.latency.to_json() if remark.latency else None,
            }


def _programs(path: Path | None) -> dict[str, Program]:
    if path is None:
        return {}
    try:
        return read_programs(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not a JSON list of functions: {error}") from None
