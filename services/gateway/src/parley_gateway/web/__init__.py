"""The gateway over HTTP: the browser page, what it needs to know, and the Realtime endpoint."""
