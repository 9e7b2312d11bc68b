"""What every Parley service stands on: server, settings, telemetry, errors, auth, audio and token primitives.

Not for anything that only one service needs, and not for models: those live with their service or library.
"""
