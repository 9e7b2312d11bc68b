"""What an MCP tool answers, as the JSON that the model is given.

Contract: structured content where there is some, else the text of all blocks; what is no text is
named, not shown. A tool that failed gives an object with the field `error`. Pure.
"""

from typing import Any

from mcp_types import (
    CallToolResult,
    EmbeddedResource,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from parley_gateway.json_fit import is_too_large


def tool_output(result: CallToolResult) -> Any:
    """Translates a result; one that is too large is an error."""
    text = "\n".join(_block_text(block) for block in result.content)
    output: Any = text if result.structured_content is None else result.structured_content
    if result.is_error:
        output = {"error": text or "the tool failed without saying why"}
    if is_too_large(output):
        return {"error": "the tool answered with too much"}
    return output


def _block_text(block: object) -> str:
    match block:
        case TextContent(text=text):
            return text
        case EmbeddedResource(resource=TextResourceContents(text=text)):
            return text
        case ResourceLink(uri=uri):
            return str(uri)
    return f"({getattr(block, 'type', 'unknown')} content, which cannot be spoken)"
