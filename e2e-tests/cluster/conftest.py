"""The book of disruptions, printed at the end and put on the page that `--table` names."""

import pytest

from cluster.book import Book

_BOOK = pytest.StashKey[Book]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_BOOK] = Book()


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
