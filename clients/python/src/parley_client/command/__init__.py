"""The `parley` command: what it prints and how it ends. The work is done elsewhere."""
