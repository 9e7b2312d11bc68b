"""A conversation held by this machine: microphone in, loudspeaker out, one tick every 20 ms.

`conversing` holds it, `microphone` hears, `player` plays, `dialogue` knows how it stands, `tape`
keeps its sound, `functions` runs what the model calls. Not for showing it
(`parley_client.command`).
"""

RATE = 24_000
"""Hz of everything that is said here, both ways: the server converts, so nobody here has to."""
FRAME = RATE // 50
"""Samples of a tick: 20 ms."""
