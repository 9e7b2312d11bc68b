"""What a terminal shows of a conversation: settled lines above, one live line below."""

from collections.abc import Callable
from types import TracebackType

from rich.live import Live
from rich.text import Text

from parley_client.command.console import clean, err, out
from parley_client.latency import Latency
from parley_client.talk.dialogue import Called, Dialogue, Noted, Phase, Remark, Reply, UserSaid

_COLOURS = {
    Phase.LISTENING: "dim",
    Phase.USER_SPEAKS: "bold green",
    Phase.THINKING: "bold yellow",
    Phase.SPEAKING: "bold cyan",
}
_REFRESHES = 10


class TalkScreen:
    """Shows a dialogue while it is held.

    The live line is for terminals; elsewhere each change of phase is a line on stderr.
    """

    def __init__(self, dialogue: Dialogue, elapsed: Callable[[], float]):
        self._dialogue = dialogue
        self._elapsed = elapsed
        self._told: Phase | None = None
        self._live = Live(
            console=err, get_renderable=self._line, refresh_per_second=_REFRESHES, transient=True
        )

    def __enter__(self) -> "TalkScreen":
        if err.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def refresh(self) -> None:
        """Takes note that something has changed."""
        phase = self._dialogue.phase
        if phase is not self._told:
            self._told = phase
            if not err.is_terminal:
                err.print(f"{self._elapsed():7.1f} s  {phase.value}", style="dim")

    def show(self, remark: Remark) -> None:
        """Shows what is settled."""
        match remark:
            case UserSaid():
                out.print(_said("you", remark.text or "(no words)", "green"))
            case Reply():
                _show_reply(remark)
            case Called():
                out.print(_said("calls", f"{remark.name}({remark.arguments})", "magenta"))
            case Noted():
                err.print(Text(clean(f"note    {remark.text} [{remark.reason}]"), style="yellow"))

    def _line(self) -> Text:
        phase = self._dialogue.phase
        line = Text(f"{self._elapsed():7.1f} s  ", style="dim")
        line.append(f"{phase.value:<9}", style=_COLOURS[phase])
        reply = self._dialogue.reply
        words = self._dialogue.user_words
        if phase is not Phase.USER_SPEAKS and reply is not None:
            words = reply.text
        room = max(10, err.width - 24)
        line.append("  " + clean(words).replace("\n", " ")[-room:], style="dim")
        return line


def latency_text(latency: Latency) -> str:
    """Where the time of a reply went, in one line."""
    parts = []
    if latency.gap_s:
        parts.append(f"gap {1000 * latency.gap_s:.0f} ms")
    # 0: it was ready when the turn ended.
    parts.append(f"first audio {1000 * latency.first_audio_s:.0f} ms")
    parts += [
        f"{stage.name} {1000 * (stage.first_output_s - stage.start_s):.0f}"
        for stage in latency.stages
    ]
    return "  ".join(parts)


def _show_reply(reply: Reply) -> None:
    if reply.interruption:
        line = _said("agent", reply.heard_text, "cyan")
        cause = reply.interruption.lower().replace("_", " ")
        line.append(f" - cut off after {reply.played_s:.1f} s ({cause})", style="yellow")
    else:
        line = _said("agent", reply.text, "cyan")
        if reply.status != "COMPLETED":
            line.append(f" ({reply.status.lower()})", style="dim")
    out.print(line)
    if reply.problem:
        err.print(Text(f"        {clean(reply.problem)}", style="red"))
    if reply.latency is not None and reply.latency.total_s:
        out.print(Text(f"        {latency_text(reply.latency)}", style="dim"))


def _said(who: str, text: str, colour: str) -> Text:
    line = Text(f"{who:<8}", style=f"bold {colour}")
    line.append(clean(text).replace("\n", " "), style="not bold default")
    return line
