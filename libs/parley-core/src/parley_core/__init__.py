"""What every Parley service stands on.

Server, settings, telemetry, errors, authentication, audio and token primitives.
Not for anything that only one service needs, and not for models: those live with their service or
library.
"""
