"""The order of the suite, and its tables, printed at the end and put on the page of `--table`.

What is said of an installation holds of a fresh one, so it is looked at first, and what kills pods
and puts others in their place comes last.
"""

import pytest

from cluster.book import DISRUPTIONS, LOADS, Book

FIRST, LAST = (
    ("test_installation.py",),
    ("test_disruptions.py", "test_upgrades.py", "test_load.py"),
)
_DISRUPTIONS, _LOADS = pytest.StashKey[Book](), pytest.StashKey[Book]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_DISRUPTIONS] = Book("disruptions", DISRUPTIONS)
    config.stash[_LOADS] = Book("loads", LOADS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = dict.fromkeys(FIRST, -1) | {name: 1 + at for at, name in enumerate(LAST)}
    items.sort(key=lambda item: names.get(item.path.name, 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    page = terminalreporter.config.getoption("--table")
    for key in (_DISRUPTIONS, _LOADS):
        book = terminalreporter.config.stash[key]
        if not book.rows:
            continue
        terminalreporter.write_line(book.render())
        if page:
            book.publish(page)


@pytest.fixture(scope="session")
def book(request: pytest.FixtureRequest) -> Book:
    return request.config.stash[_DISRUPTIONS]


@pytest.fixture(scope="session")
def load_book(request: pytest.FixtureRequest) -> Book:
    return request.config.stash[_LOADS]
