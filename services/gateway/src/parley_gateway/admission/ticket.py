"""What one conversation or call holds while it lasts, and what it uses.

Contract: everything it hears and speaks is counted at once. A conversation is told once when its
tenant's audio is used up, and once when its place is wanted by another tenant; when to end is its
own decision, which falls at a turn boundary.
"""

import time
from collections.abc import Callable
from enum import Enum

from parley_core.errors import ResourceExhausted

from parley_gateway.admission import metrics
from parley_gateway.admission.account import Account
from parley_gateway.admission.refusals import out_of_quota
from parley_gateway.stages.quota import Amount, Place


class Kind(Enum):
    """What is let in."""

    CONVERSATION = "conversation"
    ASK = "ask"
    SYNTHESIZE = "synthesize"
    RECOGNIZE = "recognize"
    CLONE = "clone"


class Ticket:
    """Lets one conversation or call be there."""

    def __init__(
        self,
        tenant: str,
        kind: Kind,
        place: Place,
        account: Account | None,
        label: str,
        least_audio: float,
    ) -> None:
        """Begins now.

        Args:
            tenant: Whose it is.
            kind: What it is.
            place: Its slot.
            account: Counts; None where nothing is limited.
            label: Of the tenant in metrics.
            least_audio: Seconds that must be there again before it is worth coming back.
        """
        self.tenant = tenant
        self.kind = kind
        self.place = place
        self.label = label
        self.began = time.monotonic()
        self.reserved = 0.0
        self._account = account
        self._least_audio = least_audio
        # Once a frame: looking labels up each time would be what most of this costs.
        self._received = metrics.AUDIO.labels(label, "in")
        self._sent = metrics.AUDIO.labels(label, "out")
        self._on_dry: Callable[[ResourceExhausted], None] | None = None
        self._on_wanted: Callable[[], None] | None = None

    @property
    def can_give_up(self) -> bool:
        """Whether it can be told, and was not yet, that its place is wanted."""
        return self._on_wanted is not None

    def watch(
        self, on_dry: Callable[[ResourceExhausted], None], on_wanted: Callable[[], None]
    ) -> None:
        """Has a conversation told, once each.

        Args:
            on_dry: The tenant's audio is used up.
            on_wanted: A tenant below its share needs the place.
        """
        self._on_dry, self._on_wanted = on_dry, on_wanted
        self.check()

    def heard(self, seconds: float) -> None:
        """Audio was received."""
        self._received.inc(seconds)
        if self._account:
            self._account.use(Amount(audio_in=seconds), time.monotonic())
            self.check()

    def spoke(self, seconds: float) -> None:
        """Audio was sent."""
        self._sent.inc(seconds)
        if self._account:
            paid = min(self.reserved, seconds)
            self.reserved -= paid
            self._account.use(Amount(audio_out=seconds - paid), time.monotonic())
            self.check()

    def check(self) -> None:
        """Tells a conversation whose tenant has no audio left."""
        if not self._account or not self._on_dry:
            return
        refusal = self._account.dry(time.monotonic(), self._least_audio)
        if refusal:
            tell, self._on_dry = self._on_dry, None
            error = out_of_quota(self.tenant, refusal, self._account.limits)
            metrics.REFUSED.labels(self.label, self.kind.value, error.reason).inc()
            tell(error)

    def give_up(self) -> None:
        """Tells a conversation that its place is wanted."""
        tell, self._on_wanted = self._on_wanted, None
        if tell:
            tell()

    def settle(self) -> None:
        """Gives back what was taken ahead and not used."""
        if self._account and self.reserved:
            self._account.use(Amount(audio_out=-self.reserved), time.monotonic())
            self.reserved = 0.0
