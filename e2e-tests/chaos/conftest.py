"""The chaos suite: faults against real processes and a real Redis, and what they left behind.

`make chaos` runs it; the marker keeps it out of every other run. `--chaos-page` names the page that
gets the table. ``PARLEY_E2E_WEIGHTS`` names a weights folder to use instead of seeding one.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chaos_book import Book
from chaos_rig import Rig

# Clients that vanish without a word are found soon, and what hangs is given up soon.
_ENV = {
    "PARLEY_GATEWAY_KEEPALIVE__TIME_S": "1",
    "PARLEY_GATEWAY_KEEPALIVE__TIMEOUT_S": "1",
    "PARLEY_TOKENIZER_ENGINE": "simulator",
    "PARLEY_VOCODER_ENGINE": "simulator",
    "PARLEY_ASR_CONTEXT_ENGINE": "simulator",
    "PARLEY_CHAT_LLM_SIMULATOR__REPLY_TOKENS": "24",
    "PARLEY_CHAT_LLM_SIMULATOR__SCRIPT": "This is a reply of several words, and it goes on.",
    "PARLEY_TTS_SIMULATOR__SPEED": "100",
}
_BOOK = pytest.StashKey[Book]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--chaos-page", type=Path, help="page that gets the table")
    group.addoption("--chaos-folder", type=Path, help="where to run, and leave all running")
    group.addoption("--vanish", type=int, default=1000, help="clients that vanish")
    group.addoption("--long-minutes", type=float, default=60, help="audio of the long session")
    group.addoption("--fuzz", type=int, default=200, help="messages a method and kind of fuzz")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_BOOK] = Book()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    book = terminalreporter.config.stash[_BOOK]
    if not book.rows:
        return
    terminalreporter.write_line(book.render())
    page = terminalreporter.config.getoption("--chaos-page")
    if page:
        book.publish(page)


@pytest.fixture(scope="session")
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    weights = os.environ.get("PARLEY_E2E_WEIGHTS")
    kept = request.config.getoption("--chaos-folder")
    made = Rig.up(kept or tmp_path_factory.mktemp("chaos"), _ENV, weights)
    yield made
    if not kept:
        made.close()


@pytest.fixture(scope="session")
def book(request: pytest.FixtureRequest) -> Book:
    return request.config.stash[_BOOK]
