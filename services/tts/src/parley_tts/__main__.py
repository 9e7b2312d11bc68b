"""`python -m parley_tts`: runs the tts service."""

from parley_core.server import run_service
from parley_core.settings import load_settings

from parley_tts.server import serve
from parley_tts.settings import TtsSettings


def main() -> None:
    """Runs the tts service until a signal ends it."""
    run_service(serve(load_settings(TtsSettings)))


if __name__ == "__main__":
    main()
