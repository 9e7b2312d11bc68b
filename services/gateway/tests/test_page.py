"""The page's own code, in Node, before a browser that does what a test says."""

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

NODE = shutil.which("node")

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(not NODE, reason="needs node (apt install nodejs)"),
]

PREPARED = """
import { $, gateway, microphones, players, settle, sockets } from "./browser.mjs";
BEFORE
await import("./page.js");
const click = async () => { $("mic").listeners.click(); await settle(); };
const state = () => document.body.dataset.state;
await settle();
"""


@pytest.fixture
def page(tmp_path):
    """Runs a script beside the page, and what it tells."""
    static = resources.files("parley_gateway.web") / "static"
    for each in static.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    browser = Path(__file__).with_name("browser.mjs")
    (tmp_path / "browser.mjs").write_bytes(browser.read_bytes())
    (tmp_path / "package.json").write_text('{"type": "module"}')

    def run(script, before=""):
        text = PREPARED.replace("BEFORE", before) + script
        (tmp_path / "test.js").write_text(text + "\nprocess.exit(0);")
        done = subprocess.run(
            [str(NODE), "test.js"], cwd=tmp_path, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_microphone_that_is_allowed_after_the_connection_failed_is_closed(page):
    told = page("""
        await click();
        sockets[0].end();
        await settle();
        microphones[0].allow();
        await settle(); await settle();
        console.log(JSON.stringify({
            live: microphones[0].stream.live,
            label: $("mic-label").textContent,
            problem: $("problem").textContent,
        }));
    """)
    assert told == {
        "live": False,
        "label": "Start talking",
        "problem": "The gateway closed the connection.",
    }


def test_a_microphone_that_is_denied_is_told(page):
    problem = page("""
        await click();
        sockets[0].tell("session.created");
        microphones[0].deny();
        await settle(); await settle();
        console.log(JSON.stringify($("problem").textContent));
    """)
    assert "Allow the microphone" in problem


def test_a_second_click_opens_no_second_microphone(page):
    assert (
        page("""
        await click();
        await click();
        console.log(JSON.stringify(microphones.length));
    """)
        == 1
    )


def test_one_connection_is_made_at_a_time(page):
    """Not by who asks meanwhile, nor by the next attempt after who asked got one."""
    told = page("""
        await click();
        $("text").value = "hello";
        $("composer").listeners.submit({ preventDefault() {} });
        await settle();
        const asked = sockets.length;
        sockets[0].end();
        await settle();
        $("text").value = "hello";
        $("composer").listeners.submit({ preventDefault() {} });
        await settle();
        sockets[1].tell("session.created");
        await new Promise((resolve) => setTimeout(resolve, 900));
        console.log(JSON.stringify([asked, sockets.length]));
    """)
    assert told == [1, 2]


def test_a_reply_that_the_connection_took_along_is_not_heard_as_going_on(page):
    told = page("""
        await click();
        microphones[0].allow();
        sockets[0].tell("session.created");
        await settle(); await settle();
        const parley = { duration_ms: 100, text_start: 0, text_end: 1 };
        const sounding = { item_id: "i", delta: "AAAA", parley };
        sockets[0].tell("response.created");
        sockets[0].tell("response.output_audio.delta", sounding);
        players[0].port.onmessage({ data: { item: "i", heard: 9, dry: false } });
        const before = state();
        sockets[0].end();
        players[0].port.onmessage({ data: { item: "i", heard: 99, dry: false } });
        console.log(JSON.stringify([before, state(), $("stop").disabled]));
    """)
    assert told == ["replying", "listening", True]


def test_a_text_that_waited_for_the_end_of_a_reply_is_sent_by_the_next_connection(page):
    sent = page("""
        await click();
        sockets[0].tell("session.created");
        microphones[0].allow();
        await settle(); await settle();
        sockets[0].tell("response.created");
        $("text").value = "hello";
        $("composer").listeners.submit({ preventDefault() {} });
        await settle(); await settle();
        sockets[0].end();
        await new Promise((resolve) => setTimeout(resolve, 900));
        sockets[1].tell("session.created");
        console.log(JSON.stringify(sockets[1].sent.map(({ type }) => type)));
    """)
    assert sent == ["session.update", "conversation.item.create", "response.create"]


def test_a_key_that_is_refused_does_not_hide_where_another_is_written(page):
    hidden, problem = page(
        """
        await settle();
        console.log(JSON.stringify([$("key-card").hidden, $("problem").textContent]));
        """,
        before='gateway.key = "new"; sessionStorage.setItem("parley-key", "old");',
    )
    assert not hidden
    assert problem == "no such key"


def test_where_a_browser_gives_no_microphone_the_page_says_what_it_needs(page):
    problem = page(
        """
        await click();
        sockets[0].tell("session.created");
        await settle(); await settle();
        console.log(JSON.stringify($("problem").textContent));
        """,
        before="globalThis.isSecureContext = false;",
    )
    assert "https" in problem
