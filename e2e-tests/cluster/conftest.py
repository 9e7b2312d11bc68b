"""The order of the suite, and the book of disruptions, printed at the end and put on the page that
`--table` names. What is said of an installation holds of a fresh one, so it is looked at first, and
what kills pods and puts others in their place comes last.
"""

import pytest

from cluster.book import Book

FIRST, LAST = ("test_installation.py",), ("test_disruptions.py", "test_upgrades.py")
_BOOK = pytest.StashKey[Book]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_BOOK] = Book()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = dict.fromkeys(FIRST, -1) | {name: 1 + at for at, name in enumerate(LAST)}
    items.sort(key=lambda item: names.get(item.path.name, 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    book = terminalreporter.config.stash[_BOOK]
    if not book.rows:
        return
    terminalreporter.write_line(book.render())
    page = terminalreporter.config.getoption("--table")
    if page:
        book.publish(page)


@pytest.fixture(scope="session")
def book(request: pytest.FixtureRequest) -> Book:
    return request.config.stash[_BOOK]
