"""Which tokens of which sequences go into the next pass. Pure: no torch, no threads, no clock.

Policy: every running reply gets its next token in every step; what is left of the step's budget
goes to prompts, oldest first, in chunks. So a long prompt slows running replies by one chunk a step
and never stalls them. A sequence waits until a slot is free; the lowest free slot is taken, which
keeps the decoding slots side by side.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from random import Random

from step1.engine.contract import GenerateRequest


@dataclass(eq=False, slots=True)
class Sequence:
    """One request on its way through the engine.

    Attributes:
        request: What was asked.
        prefill_only: Ends when the prompt is in the cache.
        random: Generator of this request alone.
        tokens: Prompt and reply so far.
        submitted: Monotonic time of submission, seconds.
        computed: Tokens whose keys are in the slot.
        cached: Prompt tokens that came from the prefix cache.
        slot: Slot of the KV cache while running.
        admitted: Monotonic time of admission.
        first_token: Monotonic time of the first token.
    """

    request: GenerateRequest
    prefill_only: bool
    random: Random
    tokens: list[int]
    submitted: float
    computed: int = 0
    cached: int = 0
    slot: int = -1
    admitted: float = 0.0
    first_token: float | None = None

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt_ids)

    @property
    def generated(self) -> int:
        """Tokens of the reply so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def decoding(self) -> bool:
        """Whether the next token to compute is the newest of the reply."""
        return self.generated > 0


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens `sequence.tokens[computed : computed + length]` of the next pass."""

    sequence: Sequence
    length: int

    @property
    def needs_logits(self) -> bool:
        """Whether this chunk ends where a new token is to be chosen."""
        sequence = self.sequence
        reaches_end = sequence.computed + self.length == len(sequence.tokens)
        return reaches_end and not sequence.prefill_only


@dataclass(slots=True)
class Scheduler:
    """Waiting and running sequences, and the free slots."""

    max_batch: int
    prefill_chunk: int
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)
    _free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._free = list(range(self.max_batch))

    @property
    def has_work(self) -> bool:
        """Whether the next step would do anything."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the queue."""
        self.waiting.append(sequence)

    def admit(self) -> list[Sequence]:
        """Give free slots to waiting sequences, oldest first, and return those that got one."""
        admitted = []
        while self._free and self.waiting:
            sequence = self.waiting.popleft()
            sequence.slot = heapq.heappop(self._free)
            self.running.append(sequence)
            admitted.append(sequence)
        return admitted

    def remove(self, sequence: Sequence) -> bool:
        """Take a sequence out, waiting or running. False when it is neither."""
        if sequence in self.running:
            self.running.remove(sequence)
            heapq.heappush(self._free, sequence.slot)
            return True
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            return True
        return False

    def plan(self) -> list[Work]:
        """Work of the next pass: replies by slot, then prompt chunks by age."""
        decoding = [sequence for sequence in self.running if sequence.decoding]
        work = [Work(sequence, 1) for sequence in sorted(decoding, key=lambda s: s.slot)]
        budget = self.prefill_chunk
        for sequence in self.running:
            if sequence.decoding:
                continue
            length = min(budget, len(sequence.tokens) - sequence.computed)
            if length:
                work.append(Work(sequence, length))
                budget -= length
        return work
