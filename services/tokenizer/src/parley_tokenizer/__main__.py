"""`python -m parley_tokenizer`: runs the tokenizer service."""

from parley_core.server import run_service
from parley_core.settings import load_settings

from parley_tokenizer.server import serve
from parley_tokenizer.settings import TokenizerSettings


def main() -> None:
    """Runs the tokenizer until a signal ends it."""
    run_service(serve(load_settings(TokenizerSettings)))


if __name__ == "__main__":
    main()
