"""Settings of the MCP servers whose tools the model may call."""

from pathlib import Path

from parley_core.settings import SettingsSection
from pydantic import Field, HttpUrl, SecretStr, model_validator


class McpServerSettings(SettingsSection):
    """A server of the Model Context Protocol, reached by streamable HTTP or started as a process.

    One connection serves all conversations: what a server remembers, it remembers for all.
    """

    name: str = Field(pattern="^[A-Za-z0-9_-]{1,64}$", description="In logs, errors and metrics.")
    url: HttpUrl | None = Field(None, description="Streamable HTTP endpoint.")
    authorization: SecretStr | None = Field(None, description="Value of that header, with `url`.")
    command: str | None = Field(None, description="Program that speaks MCP on stdin and stdout.")
    args: list[str] = Field([], description="Of the command.")
    env: dict[str, SecretStr] = Field(
        {}, description="Of the command, beside HOME, PATH and the like; nothing else is inherited."
    )
    working_dir: Path | None = Field(None, description="Of the command.")
    tools: list[str] | None = Field(None, description="Only these tools; None for all.")
    prefix: str = Field(
        "", pattern="^[A-Za-z0-9_-]{0,32}$", description="In front of the names of its tools."
    )
    timeout_s: float = Field(10, gt=0, description="Of a call, waiting for the server included.")
    survives_interruption: bool = Field(False, description="Calls go on when the user interrupts.")
    required: bool = Field(
        False, description="No conversation begins while it is away; else it does without."
    )
    connect_timeout_s: float = Field(5, gt=0, description="To connect and list the tools.")
    check_s: float = Field(30, gt=0, description="How often the tools are listed again.")

    @model_validator(mode="after")
    def _one_transport(self) -> "McpServerSettings":
        if (self.url is None) == (self.command is None):
            raise ValueError("an MCP server has either a url or a command")
        if self.command is None and (self.args or self.env or self.working_dir):
            raise ValueError("args, env and working_dir belong to a command")
        if self.url is None and self.authorization:
            raise ValueError("authorization belongs to a url; a command takes secrets by env")
        return self
