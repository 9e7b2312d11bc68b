"""Settings of the functions that the model may call."""

from collections.abc import Iterable
from typing import Any

from parley.conversation.v1 import conversation_pb2
from parley_core.errors import InvalidArgument
from parley_core.settings import SettingsSection
from pydantic import Field, HttpUrl, SecretStr, field_validator

from parley_gateway.json_fit import MAX_DEPTH, fits_struct
from parley_gateway.tools.mcp_settings import McpServerSettings


class RegisteredFunction(SettingsSection):
    """A function that the gateway calls."""

    name: str = Field(pattern="^[A-Za-z0-9_-]{1,64}$")
    description: str = Field(description="What it does and when to call it, for the model.")
    parameters: dict[str, Any] = Field({}, description="JSON schema of the arguments object.")
    url: HttpUrl = Field(description="Takes a POST with the arguments.")
    authorization: SecretStr | None = Field(None, description="Value of that header.")
    timeout_s: float = Field(10, gt=0)
    survives_interruption: bool = False

    @field_validator("parameters")
    @classmethod
    def _told_to_the_model(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        if not fits_struct(parameters):
            raise ValueError(f"nested {MAX_DEPTH} levels at most")
        return parameters


class FillerSettings(SettingsSection):
    """What is said while functions take their time; it is heard, and never part of the answer."""

    text: str = Field("", max_length=500, description="Empty: nothing is said.")
    after_s: float = Field(1.5, ge=0, description="Silence before it is said, once a reply.")


class FunctionSettings(SettingsSection):
    """Functions of conversations."""

    registered: list[RegisteredFunction] = Field([], description="Called by the gateway itself.")
    mcp_servers: list[McpServerSettings] = Field([], description="Their tools are called as well.")
    filler: FillerSettings = FillerSettings()
    timeout_s: float = Field(30, gt=0, description="Of a client's function that says no other.")
    max_timeout_s: float = Field(300, gt=0, description="That a client's function may ask for.")

    def check_names(
        self, declared: Iterable[conversation_pb2.FunctionDeclaration], *, field: str
    ) -> None:
        """Refuses declarations of the client's that are named like registered functions.

        Raises:
            InvalidArgument: reason FUNCTION_TWICE_INVALID.
        """
        names = {each.name for each in self.registered}
        for number, each in enumerate(declared):
            if each.name in names:
                raise InvalidArgument(
                    f"function {each.name} is registered in the gateway",
                    field=f"{field}[{number}].name",
                    reason="FUNCTION_TWICE_INVALID",
                )

    def find(self, name: str) -> RegisteredFunction | None:
        """The registered function of this name."""
        return next((each for each in self.registered if each.name == name), None)
