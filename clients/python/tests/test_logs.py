"""Logs of the constellation on this machine: what is found in them, followed and moved away."""

import pytest
from parley_client.local import logs

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("Traceback (most recent call last):\n  File\nValueError: none\n", "ValueError: none"),
        (
            '{"event": "started", "level": "info"}\nsettings: unknown key x\n',
            "settings: unknown key x",
        ),
        (
            '{"event": "cannot load", "level": "error", "error": "model.pt is cut off"}\n'
            '{"event": "stopped", "level": "info"}\n',
            "cannot load: model.pt is cut off",
        ),
        ('{"event": "warming up", "level": "info"}\n', "warming up"),
        (
            '{"event": "no", "level": "critical", "exception": "Traceback\\n  x\\nKeyError: 3"}\n',
            "no: KeyError: 3",
        ),
        (
            '{"event": "warm_up_failed", "level": "error", "exception": '
            '[{"exc_type": "ConfigError", "exc_value": "no config.json"}]}\n',
            "warm_up_failed: ConfigError: no config.json",
        ),
        (
            '{"event": "warm_up_failed", "level": "error"}\ntts: warm-up failed: no voices\n',
            "tts: warm-up failed: no voices",
        ),
        ("\x1b[31mred words\x1b[0m\n\n", "red words"),
    ],
)
def test_the_line_that_tells_why_is_found(tmp_path, text, line):
    log = tmp_path / "x.log"
    log.write_text(text)
    assert logs.last_readable_line(log) == line


def test_structured_lines_are_shown_for_people():
    line = (
        '{"event": "serving", "level": "info", "timestamp": "2026-11-21T03:09:27.307677Z", '
        '"service": "tts", "port": 5, "host": "h"}'
    )
    assert logs.readable(line) == "03:09:27.307  info     serving  port=5 host=h"
    assert logs.readable("plain {words}") == "plain {words}"


def test_a_long_log_moves_away_while_it_is_written(tmp_path):
    log = tmp_path / "x.log"
    with log.open("a") as writer:
        writer.write("old\n" * 10)
        writer.flush()
        logs.rotate(log, limit=20)
        writer.write("new\n")
    assert log.read_text() == "new\n"
    assert (tmp_path / "x.log.1").read_text() == "old\n" * 10


@pytest.mark.parametrize("width", [1, 5_000, 200_000])
def test_a_tail_has_the_lines_that_are_asked_for_and_all_of_them_whole(tmp_path, width):
    log = tmp_path / "x.log"
    written = [f"{number:02} {'é' * width}" for number in range(30)]
    log.write_text("\n".join(written) + "\n")
    for lines in (0, 1, 29, 30, 31):
        assert logs.tail(log, lines) == (written[-lines:] if lines else [])
    log.write_text("\n".join(written))
    assert logs.tail(log, 2) == written[-2:]
    log.write_text("")
    assert logs.tail(log, 2) == []


def test_a_letter_that_is_written_in_two_halves_is_followed_as_one(tmp_path):
    log = tmp_path / "x.log"
    log.write_bytes(b"")
    lines = logs.follow({"x": log}, poll_s=0.001)
    first, second = "one\né\n".encode().split(b"\xc3")
    with log.open("ab") as writer:
        writer.write(first + b"\xc3")
        writer.flush()
        assert next(lines) == ("x", "one")
        writer.write(second)
        writer.flush()
        assert next(lines) == ("x", "é")


def test_followed_logs_yield_whole_lines_from_now_on(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("before\n")
    lines = logs.follow({"x": log}, poll_s=0.001)
    with log.open("a") as writer:
        writer.write("one\ntwo")
        writer.flush()
        assert next(lines) == ("x", "one")
        writer.write("!\n")
        writer.flush()
        assert next(lines) == ("x", "two!")


def test_what_is_written_between_the_tail_and_the_following_is_told_once(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("one\ntwo\n")
    start = logs.ends({"x": log, "late": tmp_path / "late.log"})
    with log.open("a") as writer:
        writer.write("three\n")
    assert logs.tail(log, 5, end=start["x"]) == ["one", "two"]
    lines = logs.follow({"x": log}, start, poll_s=0.001)
    assert next(lines) == ("x", "three")
