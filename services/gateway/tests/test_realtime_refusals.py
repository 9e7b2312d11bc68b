"""What a Realtime client does wrong is answered by an error, and the connection goes on."""

import json

import aiohttp
import pytest
from gateway_fakes import Fault, fake_stages
from gateway_harness import running_gateway, vowels
from gateway_realtime import RATE, Raw, base64_of, connected, connected_raw, http_port
from parley_core.settings import AuthSettings

pytestmark = pytest.mark.contract


@pytest.fixture
async def address(gateway):
    async with http_port(gateway) as address:
        yield address


@pytest.fixture
async def raw(address):
    async with connected_raw(address) as talk:
        yield talk


def message(**fields):
    return json.dumps({"event_id": "mine", **fields})


def session(**fields):
    return message(type="session.update", session={"type": "realtime", **fields})


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        ("{", "invalid_json", None),
        ("[" * 100_000, "invalid_json", None),
        ("[]", "invalid_event", None),
        (message(), "invalid_event", None),
        (message(type="no.such"), "unknown_event", "type"),
        (message(type="response.create", nonsense=1), "unknown_parameter", "nonsense"),
        (message(type="input_audio_buffer.append"), "missing_required_parameter", "audio"),
        (message(type="input_audio_buffer.append", audio="%%"), "invalid_value", "audio"),
        (message(type="input_audio_buffer.append", audio="AAAA"), "invalid_value", "audio"),
        (message(type="input_audio_buffer.commit"), "turn_detection_active", None),
        (message(type="response.create"), "nothing_to_answer", None),
        (message(type="response.create", response={"voice": "x"}), "unsupported_value",
         "response.voice"),
        (message(type="conversation.item.delete", item_id="x"), "item_unknown", "item_id"),
        (message(type="conversation.item.truncate", item_id="x", content_index=0,
                 audio_end_ms=0), "item_unknown", "item_id"),
        (message(type="conversation.item.create", item={"type": "message", "role": "system",
                 "content": []}), "unsupported_value", "item.role"),
        (session(colour="red"), "unknown_parameter", "session.colour"),
        (session(output_modalities=["text"]), "unsupported_value", "session.output_modalities"),
        (session(audio={"input": {"format": {"type": "audio/pcmu"}}}), "unsupported_value",
         "session.audio.input.format"),
        (session(audio={"input": {"turn_detection": {"type": "server_vad",
                 "create_response": False}}}), "unsupported_value",
         "session.audio.input.turn_detection.create_response"),
        (session(instructions="x" * 5000), "system_prompt_too_long", "session.instructions"),
        (session(audio={"output": {"voice": "alloy"}}), "voice_unknown",
         "session.audio.output.voice"),
        (session(tools=[{"type": "mcp", "server_label": "x"}]), "unsupported_value",
         "session.tools[0].type"),
    ],
)  # fmt: skip
async def test_a_wrong_event_is_told_by_code_and_parameter(raw, sent, code, param):
    await raw.socket.send_str(sent)
    error = (await raw.until("error"))["error"]
    assert error["type"] == "invalid_request_error"
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    assert error["event_id"] == ("mine" if '"mine"' in sent else None)
    await raw.socket.send_str(session(instructions="Be brief."))
    assert (await raw.until("session.updated"))["session"]["instructions"] == "Be brief."


async def test_a_binary_message_is_refused(raw):
    await raw.socket.send_bytes(b"\0\0")
    assert (await raw.until("error"))["error"]["code"] == "invalid_event"


async def test_too_much_audio_in_one_event_is_refused_and_much_is_taken():
    async with fake_stages() as stages:
        http = {"max_append_bytes": 100_000}
        async with (
            running_gateway(stages, http=http) as gateway,
            http_port(gateway) as address,
            connected(address) as caller,
        ):
            await caller.update(audio={"input": {"turn_detection": None}})
            buffer = caller.connection.input_audio_buffer
            await buffer.append(audio=base64_of(vowels(2.3, rate=RATE)))
            assert (await caller.until("error")).error.code == "audio_message_too_large"
            await buffer.append(audio=base64_of(vowels(2.0, rate=RATE)))
            await buffer.commit()
            await caller.until("input_audio_buffer.committed")
        await stages.idle()


async def test_a_stage_that_fails_ends_the_response_and_not_the_connection(gateway, address):
    async with connected(address) as caller:
        gateway.stages.chat.faults.extend([Fault(before=True)] * 3)
        await caller.write("hello")
        failed = (await caller.until("response.done")).response
        gateway.stages.chat.faults.clear()
        await caller.write("hello again")
        done = (await caller.until("response.done")).response
    assert failed.status == "failed"
    assert failed.status_details.error.code == "stage_lost"
    assert done.status == "completed"


async def test_an_item_that_was_not_answered_can_be_taken_back(gateway, address):
    async with connected(address) as caller:
        content = [{"type": "input_text", "text": "forget this"}]
        item = {"id": "a", "type": "message", "role": "user", "content": content}
        await caller.connection.conversation.item.create(item=item)
        await caller.connection.conversation.item.delete(item_id="a")
        assert (await caller.until("conversation.item.deleted")).item_id == "a"
        await caller.connection.response.create()
        assert (await caller.until("error")).error.code == "nothing_to_answer"


async def test_a_session_is_told_as_changed_only_when_all_of_the_change_is_taken():
    registered = {"name": "weather", "description": "", "url": "http://127.0.0.1:9/"}
    async with (
        fake_stages() as stages,
        running_gateway(stages, functions={"registered": [registered]}) as gateway,
        http_port(gateway) as address,
        connected_raw(address) as raw,
    ):
        tools = [{"type": "function", "name": name} for name in ("mine", "weather")]
        manual = {"input": {"turn_detection": None}}
        await raw.socket.send_str(session(instructions="Bark.", audio=manual, tools=tools))
        error = (await raw.until("error"))["error"]
        assert (error["code"], error["param"]) == (
            "function_twice_invalid",
            "session.tools[1].name",
        )
        await raw.socket.send_str(session())
        told = (await raw.until("session.updated"))["session"]
        assert told["tools"] == []
        assert told["instructions"] != "Bark."
        assert told["audio"]["input"]["turn_detection"]


async def test_keys_open_the_door_in_a_header_or_as_a_subprotocol():
    auth = AuthSettings(api_keys={"acme": "secret"})
    async with (
        fake_stages() as stages,
        running_gateway(stages, auth=auth) as gateway,
        http_port(gateway) as address,
        aiohttp.ClientSession() as client,
    ):
        async with connected(address, key="secret") as caller:
            await caller.until("session.created")
        with pytest.raises(Exception, match="401"):
            async with connected(address, key="wrong"):
                pass
        protocols = ("realtime", "openai-insecure-api-key.secret")
        url = f"http://{address}/v1/realtime"
        async with client.ws_connect(url, protocols=protocols) as socket:
            assert socket.protocol == "realtime"
            await Raw(socket).until("session.created")
        async with client.get(f"http://{address}/v1/voices") as refused:
            assert refused.status == 401
            assert (await refused.json())["error"]["code"] == "credentials_missing"
        names = list(gateway.stages.context.sessions)
        assert all(name.startswith("tenants/acme/") for name in names)
        assert len(names) == 2


async def test_a_page_of_another_origin_may_not_connect_unless_allowed(address):
    async with aiohttp.ClientSession() as client:
        url = f"http://{address}/v1/realtime"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(url, origin="https://evil.example")
        assert refused.value.status == 403
        async with client.ws_connect(url, origin=f"http://{address}") as socket:
            await Raw(socket).until("session.created")


async def test_a_client_that_leaves_takes_the_work_with_it(gateway, address):
    gateway.stages.chat.gate.clear()
    async with connected(address) as caller:
        await caller.write("tell me a story")
        await caller.until("response.output_audio_transcript.delta")
    await gateway.stages.idle()
    gateway.stages.chat.gate.set()


async def test_the_page_asks_for_voices_and_is_told_honestly_what_answers(gateway, address):
    async with aiohttp.ClientSession() as client:
        async with client.get(f"http://{address}/v1/voices") as voices:
            told = await voices.json()
        assert (told["default_voice"], told["data"][0]["id"]) == ("tingting", "tingting")
        async with client.get(f"http://{address}/v1/about") as about:
            assert await about.json() == {"credentials_needed": False, "stub_weights": True}
        async with client.get(f"http://{address}/") as page:
            assert page.status == 200
            assert "default-src 'none'" in page.headers["Content-Security-Policy"]
            assert "http://" not in await page.text()
