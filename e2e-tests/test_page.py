"""The browser page in headless Chromium, talking to the real services.

`PARLEY_PAGE_SCREENSHOT` names a file that the page in conversation is photographed into.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, DRIVER, browser
from constellation import QUESTION, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromium-driver (apt install both)"
    ),
]

LOOK = """
const turns = [...document.querySelectorAll(".turn")].map((node) => ({
  who: node.dataset.who,
  cut: node.classList.contains("cut"),
  pending: node.classList.contains("pending"),
  heard: node.querySelector(".heard").textContent,
  ahead: node.querySelector(".ahead").textContent,
}));
const text = (id) => document.getElementById(id).textContent;
return {
  turns,
  state: document.body.dataset.state,
  connection: document.body.dataset.connection,
  problem: text("problem"),
  stubs: !document.getElementById("stubs").hidden,
  gap: text("gap"),
  stages: [...document.querySelectorAll("#stages li")].map((node) => node.firstChild.title),
  voices: document.getElementById("voice").options.length,
};
"""


@pytest.fixture(scope="module")
def microphone(tmp_path_factory) -> Path:
    """The question, and a pause that is long enough for a reply to begin."""
    samples, rate = soundfile.read(QUESTION, dtype="int16")
    path = tmp_path_factory.mktemp("microphone") / "question.wav"
    before, after = np.zeros(rate, "int16"), np.zeros(9 * rate, "int16")
    soundfile.write(path, np.concatenate([before, samples, after]), rate, subtype="PCM_16")
    return path


def replies(seen):
    return [each for each in seen["turns"] if each["who"] == "reply"]


def test_one_talks_with_the_page_and_over_its_reply(processes, microphone):
    page = processes.status()["page"]
    with browser(microphone) as window:
        window.open(f"{page}?autostart=1")

        def see(condition, timeout, what):
            seen = {}

            def check():
                seen.update(window.run(LOOK))
                return condition(seen)

            try:
                until(check, timeout, what)
            except AssertionError:
                raise AssertionError(f"{what}: {seen}, {window.complaints()}") from None
            return seen

        see(lambda seen: seen["connection"] == "open" and seen["voices"] > 1, 30, "connected")
        see(lambda seen: seen["state"] == "speaking", 30, "speech was heard")
        seen = see(lambda seen: replies(seen) and seen["state"] == "replying", 60, "a reply")
        assert seen["turns"][0]["who"] == "you"
        see(lambda seen: replies(seen)[0]["heard"], 30, "words of the reply were heard")
        # The microphone plays the question again, over the reply or after it.
        seen = see(lambda seen: len(seen["turns"]) > 2, 60, "a second turn")
        first = replies(seen)[0]
        assert first["cut"] or not first["ahead"]
        seen = see(lambda seen: seen["gap"] != "–", 60, "latency")
        assert seen["gap"].endswith(" ms")
        assert seen["stages"] == ["tokenizer", "context", "chat", "tts", "vocoder"]
        assert not seen["problem"]
        if photograph := os.environ.get("PARLEY_PAGE_SCREENSHOT"):
            see(lambda seen: len(replies(seen)) > 1 and replies(seen)[1]["heard"], 60, "a second")
            window.screenshot(Path(photograph))
        assert not window.complaints()


def test_one_writes_to_the_page_and_it_says_that_random_weights_mean_nothing(processes, tmp_path):
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(48_000, "int16"), 16_000, subtype="PCM_16")
    with browser(silence) as window:
        window.open(processes.status()["page"])
        window.run(
            "document.getElementById('text').value = arguments[0];"
            "document.getElementById('composer').requestSubmit();",
            "What is the capital of France?",
        )
        seen = until(lambda: (look := window.run(LOOK)) and replies(look) and look, 60, "an answer")
        assert seen["turns"][0]["heard"] == "What is the capital of France?"
        if processes.seeded:
            until(lambda: window.run(LOOK)["stubs"], 30, "the page says what answers")
