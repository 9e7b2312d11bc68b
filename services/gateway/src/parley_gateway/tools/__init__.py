"""Tools that the gateway calls itself: HTTP functions, and those of MCP servers."""
