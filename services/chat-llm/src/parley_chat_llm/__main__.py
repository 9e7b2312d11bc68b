"""`python -m parley_chat_llm`: runs the chat-llm service."""

from parley_core.server import run_service
from parley_core.settings import load_settings

from parley_chat_llm.server import serve
from parley_chat_llm.settings import ChatLlmSettings


def main() -> None:
    """Runs the chat-llm service until a signal ends it."""
    run_service(serve(load_settings(ChatLlmSettings)))


if __name__ == "__main__":
    main()
