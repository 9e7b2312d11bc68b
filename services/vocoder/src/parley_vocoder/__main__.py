"""`python -m parley_vocoder`: runs the vocoder."""

from parley_core.server import run_service
from parley_core.settings import load_settings

from parley_vocoder.server import serve
from parley_vocoder.settings import VocoderSettings


def main() -> None:
    """Runs the vocoder until a signal ends it."""
    run_service(serve(load_settings(VocoderSettings)))


if __name__ == "__main__":
    main()
