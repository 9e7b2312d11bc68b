import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_asr_context.messages import (
    Audio,
    FunctionCall,
    FunctionResult,
    Message,
    Role,
    Text,
    dump_messages,
    load_messages,
)
from parley_asr_context.prompt import build_prompt, turn_messages
from parley_asr_context.token_counter import ByteCounter, ChatTokenCounter, _step1
from parley_asr_context.turns import TranscriptState, Turn, TurnStatus
from parley_core.errors import InvalidArgument
from step1.chat_prompt import ChatTemplate
from step1.seeded import write_seeded_chat
from step1.text_tokenizer import TextTokenizer

pytestmark = pytest.mark.unit


class LetterCounter:
    def text(self, text):
        return len(text)

    def message(self, message):
        return 2 + sum(len(part.ids) if isinstance(part, Audio) else 3 for part in message.parts)


COUNTER = LetterCounter()


def turn(index=0, **changes):
    base = Turn(
        turn_id=f"t{index}",
        index=index,
        create_time=0.0,
        user_text="",
        user_audio=(),
        user_audio_ms=0,
        generated_text="",
        heard_text="",
        functions=(),
        status=TurnStatus.COMPLETED,
        transcript=TranscriptState.NOT_NEEDED,
    )
    return dataclasses.replace(base, **changes)


turns = st.builds(
    lambda text, audio, state, heard, calls: turn(
        user_text=text if state in ("DONE", "NOT_NEEDED") else "",
        user_audio=tuple(audio),
        heard_text=heard,
        transcript=TranscriptState(state),
        functions=(Message(Role.FUNCTION, (FunctionResult("1", "f", calls),)),) if calls else (),
    ),
    st.text(max_size=9),
    st.lists(st.integers(0, 5119), max_size=20),
    st.sampled_from(["NONE", "NOT_NEEDED", "PENDING", "DONE", "FAILED"]),
    st.text(max_size=9),
    st.text(max_size=3),
)


@given(st.text(max_size=9), st.lists(turns, max_size=8), st.integers(0, 200))
def test_a_prompt_fits_and_is_a_run_of_whole_turns_with_the_newest(system, newest_first, budget):
    whole = [
        Message(Role.SYSTEM, (Text(system),)),
    ] * bool(system)
    if sum(map(COUNTER.message, whole)) > budget:
        with pytest.raises(InvalidArgument):
            build_prompt(system, newest_first, budget, COUNTER)
        return
    prompt = build_prompt(system, newest_first, budget, COUNTER)
    assert prompt.token_count == sum(map(COUNTER.message, prompt.messages)) <= budget
    kept = newest_first[: prompt.kept_turns]
    expected = [message for one in reversed(kept) for message in turn_messages(one)]
    assert list(prompt.messages) == whole + expected
    if prompt.kept_turns < len(newest_first):
        next_one = turn_messages(newest_first[prompt.kept_turns])
        assert prompt.token_count + sum(map(COUNTER.message, next_one)) > budget


def test_audio_stands_in_until_the_text_is_there():
    waiting = turn(user_audio=(1, 2, 3), transcript=TranscriptState.PENDING, heard_text="ok")
    done = dataclasses.replace(waiting, user_text="hm", transcript=TranscriptState.DONE)
    failed = dataclasses.replace(waiting, transcript=TranscriptState.FAILED)
    assert turn_messages(waiting)[0] == Message(Role.USER, (Audio((1, 2, 3)),))
    assert turn_messages(done)[0] == Message(Role.USER, (Text("hm"),))
    prompt = build_prompt("", [waiting, done, failed], 1000, COUNTER)
    assert prompt.audio_turns == 2
    assert prompt.audio_to_text_ratio == 3 / 2


def test_silence_leaves_no_user_message_and_an_unheard_reply_none_either():
    silent = turn(user_audio=(1,), transcript=TranscriptState.DONE, generated_text="never played")
    assert turn_messages(silent) == ()
    prompt = build_prompt("", [silent], 0, COUNTER)
    assert (prompt.kept_turns, prompt.audio_turns, prompt.audio_to_text_ratio) == (1, 0, 0.0)


def test_what_was_generated_but_not_heard_is_not_history():
    cut = turn(user_text="q", generated_text="one two", heard_text="one")
    assert turn_messages(cut)[-1] == Message(Role.ASSISTANT, (Text("one"),))


CHAT = (
    Message(Role.SYSTEM, (Text("Antworte kurz."),)),
    Message(Role.USER, (Audio((0, 1023, 1024, 5119, 1025)),)),
    Message(Role.ASSISTANT, (Text("好的"), FunctionCall("i", "weather", '{"city": "上海"}'))),
    Message(
        Role.FUNCTION,
        (FunctionResult("i", "weather", '"sunny"'), FunctionResult("j", "f", "[1]")),
    ),
    Message(Role.ASSISTANT, (Text("<|EOT|> sunny 🌞"),)),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    write_seeded_chat(folder)
    return TextTokenizer.load(folder)


def test_counts_are_those_of_the_chat_models_own_prompt(tokenizer):
    counter = ChatTokenCounter(tokenizer)
    prompt = ChatTemplate(tokenizer).encode([_step1(message) for message in CHAT])
    around = ChatTemplate(tokenizer).encode([])
    assert sum(map(counter.message, CHAT)) == len(prompt.ids) - len(around.ids)
    assert counter.text("hello") == len(tokenizer.encode_text("hello"))


@given(st.text(max_size=30))
def test_bytes_are_never_fewer_than_tokens(tokenizer, text):
    exact, bound = ChatTokenCounter(tokenizer), ByteCounter()
    for message in (*CHAT, Message(Role.USER, (Text(text), Audio((1, 2, 1030, 1031, 1032))))):
        assert bound.message(message) >= exact.message(message)
    assert bound.text(text) >= exact.text(text)


def test_messages_read_back_as_written():
    parts = (
        Text("你"),
        Audio((0, 5119)),
        FunctionCall("1", "f", '{"a":1}'),
        FunctionResult("1", "f", "2"),
    )
    messages = tuple(Message(role, parts) for role in Role)
    assert load_messages(dump_messages(messages)) == messages
