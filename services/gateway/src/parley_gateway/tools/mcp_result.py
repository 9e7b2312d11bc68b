"""What an MCP tool answers, as the JSON that the model is given.

Contract: structured content where there is some, else the text of all blocks; what is no text is
named, not shown. A tool that failed gives an object with the field `error`. Pure.
"""

import json
from typing import Any

from mcp_types import (
    CallToolResult,
    EmbeddedResource,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

MAX_RESULT_BYTES = 65_536


def tool_output(result: CallToolResult) -> Any:
    """Translates a result; one that is too large is an error."""
    text = "\n".join(_block_text(block) for block in result.content)
    if result.is_error:
        return {"error": text or "the tool failed without saying why"}
    output: Any = text if result.structured_content is None else result.structured_content
    if len(json.dumps(output, ensure_ascii=False).encode()) > MAX_RESULT_BYTES:
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
