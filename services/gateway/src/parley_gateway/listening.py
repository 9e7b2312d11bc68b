"""What the user says in one stream: gathered into utterances, tokenized, asked about.

Contract: does what the controller decides about utterances, at once and without waiting; what comes
of it is fed back as events. At most one utterance is open. Not for finding speech (`microphone`,
`vad`), or for deciding what it means (`turns`).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from parley_core.errors import ParleyError
from parley_core.logging import get_logger

from parley_gateway.messages import speech_format
from parley_gateway.microphone import Microphone
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages.bundle import Stages
from parley_gateway.turns import events as ev
from parley_gateway.utterance import Utterance
from parley_gateway.vad import SAMPLE_RATE

_log = get_logger("parley.gateway.listening")


class Listening:
    """The utterances of one stream."""

    def __init__(
        self,
        stages: Stages,
        settings: GatewaySettings,
        microphone: Microphone,
        feed: Callable[[ev.Event], None],
        prefill: Callable[[Utterance], Coroutine[Any, Any, None]],
        judge: Callable[[Utterance], Coroutine[Any, Any, float | None]],
    ) -> None:
        """Begins without an utterance.

        Args:
            stages: Do the work.
            settings: Limits.
            microphone: Of the stream.
            feed: Tells the controller.
            prefill: Computes the prompt of an utterance while it grows.
            judge: Tells how likely an utterance is finished by its words.
        """
        self._stages = stages
        self._settings = settings
        self._microphone = microphone
        self._feed = feed
        self._prefill = prefill
        self._judge = judge
        self._running: asyncio.Task[None] | None = None
        self._prefilling: asyncio.Task[None] | None = None
        self.utterance: Utterance | None = None

    def hear(self, pcm: bytes) -> None:
        """Takes the user's audio, PCM_S16LE, mono, 16 kHz."""
        utterance = self.utterance
        if not utterance:
            return
        utterance.hear(pcm)
        longest = self._settings.request_limits.max_utterance_s + self._settings.turns.pre_roll_s
        if utterance.seconds > longest:
            # It came faster than it was spoken: the clock of the turn does not tell.
            self._feed(ev.UtteranceFull(utterance.turn_id))

    def open(self, tasks: asyncio.TaskGroup, turn_id: str, offset: float) -> None:
        """Begins an utterance with the audio from `offset` on, and what went just before."""
        deadline = self._settings.stages.tokenizer.deadline_s
        utterance = Utterance(self._stages.tokenizer, turn_id, deadline)
        utterance.hear(self._microphone.since(offset - self._settings.turns.pre_roll_s))
        self.utterance = utterance
        self._running = tasks.create_task(utterance.run())
        if self._settings.turns.prefill.enabled:
            self._prefilling = tasks.create_task(self._prefill(utterance))

    def end(self) -> Utterance | None:
        """Ends the utterance; its last tokens are on their way."""
        utterance, self.utterance = self.utterance, None
        if utterance:
            utterance.end()
        self._stop_prefill()
        return utterance

    def drop(self) -> None:
        """Forgets the utterance."""
        self.utterance = None
        if self._running:
            self._running.cancel()
        self._stop_prefill()

    def _stop_prefill(self) -> None:
        # The reply computes what is left: the same work done twice would only be in its way.
        if self._prefilling:
            self._prefilling.cancel()

    def recognize(self, tasks: asyncio.TaskGroup, turn_id: str) -> None:
        """Finds out whether the utterance holds words."""
        if self.utterance:
            tasks.create_task(self._recognize(turn_id, self.utterance.pcm))

    def score(self, tasks: asyncio.TaskGroup, turn_id: str) -> None:
        """Judges whether the utterance is finished by its words."""
        if self.utterance:
            tasks.create_task(self._score(turn_id, self.utterance))

    async def _score(self, turn_id: str, utterance: Utterance) -> None:
        try:
            async with asyncio.timeout(self._settings.turns.score_wait_s):
                probability = await self._judge(utterance)
        except (ParleyError, TimeoutError) as error:
            _log.info("turn_not_scored", turn=turn_id, cause=type(error).__name__)
        else:
            if probability is not None:
                self._feed(ev.TurnScored(turn_id, probability))

    async def _recognize(self, turn_id: str, pcm: bytes) -> None:
        audio_format = speech_format(SAMPLE_RATE)
        patience = self._settings.turns.words_wait_s
        try:
            said = await self._stages.context.transcribe(audio_format, pcm, patience)
        except ParleyError as error:
            # Unheard words count as words: the turn is answered when its silence is over.
            _log.warning("words_not_recognized", turn=turn_id, reason=error.reason)
        else:
            self._feed(ev.WordsRecognized(turn_id, said.text))
