"""What went wrong, as a value that pure code can hold and pass on."""

from dataclasses import dataclass
from dataclasses import field as dataclass_field


@dataclass(frozen=True, slots=True)
class Problem:
    """An error that does not end the stream.

    Attributes:
        code: Number of the gRPC status code.
        reason: Cause in UPPER_SNAKE_CASE.
        message: One sentence for people.
        field: Path of the wrong field, if one is.
        metadata: dict[str, str] = dataclass_field(default_factory=dict)
        retry_after: Seconds after which trying again makes sense; None when it never does.
    """

    code: int
    reason: str
    message: str
    field: str = ""
    metadata: dict[str, str] = dataclass_field(default_factory=dict)
    retry_after: float | None = None
