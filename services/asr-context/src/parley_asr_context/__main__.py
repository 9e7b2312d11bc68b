"""`python -m parley_asr_context`: runs the asr-context service."""

from parley_core.server import run_service
from parley_core.settings import load_settings

from parley_asr_context.server import serve
from parley_asr_context.settings import AsrContextSettings


def main() -> None:
    """Runs asr-context until a signal ends it."""
    run_service(serve(load_settings(AsrContextSettings)))


if __name__ == "__main__":
    main()
