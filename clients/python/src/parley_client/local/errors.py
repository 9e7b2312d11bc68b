"""What can go wrong on this machine, told in one line."""


class LocalError(Exception):
    """Something on this machine is missing or in the way.

    Attributes:
        message: the cause and the remedy, one line.
        reason: machine-readable cause in UPPER_SNAKE_CASE.
    """

    def __init__(self, message: str, *, reason: str):
        super().__init__(message)
        self.message = message
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]"
