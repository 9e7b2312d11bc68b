"""What is said makes sense: questions are understood, and the right words come out as sound.

Needs weights that were trained: where the suite runs on random ones, `weights/pocket` run beside
them for what they are known to do without their manifest; the rest waits for it. The questions lie
in data/, made with flite.
"""

import json
import re
import wave

import pytest
from constellation import DATA, running
from parley_client.local.weights import POCKET

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def trained(constellation, tmp_path_factory):
    """Parley with weights that mean something."""
    if not constellation.seeded:
        yield constellation
        return
    if constellation.at:
        pytest.skip("random weights mean nothing")
    with running(tmp_path_factory.mktemp("trained") / "state", POCKET) as made:
        yield made


@pytest.fixture
def finished(constellation):
    """Weights with a manifest: they are to do all of this."""
    if constellation.seeded:
        pytest.skip("the weights that talk have no manifest yet")


def words(text):
    """Small letters, without style tags and punctuation; spelled words as letters."""
    return " ".join(re.findall(r"[\w']+", re.sub(r"\(.*?\)", " ", text).lower()))


@pytest.fixture(scope="module")
def sounding(trained, tmp_path_factory):
    """Asks with recordings of data/ in one session: what was told, and the answer's file."""
    folder = tmp_path_factory.mktemp("meaning")

    def ask(*names, more=()):
        session = ""
        for name in names:
            path = folder / f"{name}.wav"
            done = trained.parley(
                *("ask", DATA / f"{name}.wav", "-o", path, "--json", "--seed", 5, *more),
                *(("--session", session) if session else ()),
            )
            assert done.status == 0, done.err
            session = done.json["session"]
        return done.json, path

    return ask


def transcript(trained, path):
    """What our recogniser hears in a file."""
    done = trained.parley("transcribe", path, "--json")
    assert done.status == 0, done.err
    return words(done.json["text"])


def test_the_sum_is_heard_and_answered(sounding):
    told, _ = sounding("sum")
    assert words(told["heard"]) == "what is thirty nine plus seventeen"
    assert words(told["answer"]) == "thirty nine plus seventeen is fifty six"


@pytest.mark.usefixtures("finished")
def test_the_result_of_the_sum_is_spoken(trained, sounding):
    _, answer = sounding("sum")
    assert transcript(trained, answer).endswith("fifty six")


@pytest.mark.usefixtures("finished")
def test_a_follow_up_goes_on_from_the_answer_before(trained, sounding):
    told, answer = sounding("sum", "follow_up")
    assert words(told["answer"]) == "fifty six plus two is fifty eight"
    assert transcript(trained, answer).endswith("fifty eight")


@pytest.mark.usefixtures("finished")
def test_the_third_turn_is_answered_in_the_style_that_was_asked_for(trained, sounding, tmp_path):
    told, answer = sounding("sum", "follow_up", "style")
    assert told["answer"] == "(慢速2)we won the game"
    plain = tmp_path / "plain.wav"
    said = trained.parley("say", "we won the game", "-o", plain, "--seed", 5)
    assert said.status == 0, said.err
    with wave.open(str(answer)) as slow, wave.open(str(plain)) as usual:
        assert slow.getnframes() > 1.25 * usual.getnframes()
    assert transcript(trained, plain) == "we won the game"


@pytest.mark.usefixtures("finished")
def test_a_function_is_called_with_what_was_said(sounding, tmp_path):
    declared = json.loads((DATA / "weather.json").read_text())
    for each in declared:
        del each["run"]
    functions = tmp_path / "functions.json"
    functions.write_text(json.dumps(declared))
    told, _ = sounding("weather", more=("--functions", functions))
    assert [(each["name"], each["arguments"]) for each in told["function_calls"]] == [
        ("get_weather", {"city": "london"})
    ]


def test_a_written_question_gets_the_same_answer(trained):
    done = trained.parley(
        "ask", "--text", "What is the capital of France?", "--text-only", "--json"
    )
    assert words(done.json["answer"]) == "the capital of france is paris"


@pytest.mark.usefixtures("finished", "processes")
def test_a_scripted_conversation_is_held_and_kept_as_it_was_heard(trained, tmp_path):
    tape = tmp_path / "talk.wav"
    done = trained.parley(
        *("talk", "--wav", DATA / "conversation.wav", "--functions", DATA / "weather.json"),
        *("--json", "--seed", 5, "-o", tape),
    )
    assert done.status == 0, done.err
    turns = [each for each in done.json["turns"] if each["generated_text"]]
    heard = [words(each["heard_text"]) for each in turns]
    assert heard[0] == "thirty three plus thirty nine is seventy two"
    # Cut off by the next question: a beginning of what was to be said, and no more.
    count = "eleven twelve thirteen fourteen fifteen sixteen seventeen"
    assert turns[1]["status"] == "INTERRUPTED"
    assert words(turns[1]["generated_text"]) == count
    assert count.startswith(heard[1])
    assert heard[1] != count
    assert heard[2] == "the capital of france is paris"
    # The hum over it did not cost a word.
    assert heard[3] == "our teacher watches the night sky"
    assert turns[3]["status"] == "COMPLETED"
    assert heard[4] == "it is sunny and twelve degrees in london"
    assert len(turns) == 5
    remarks = done.json["remarks"]
    assert [(each["name"], each["arguments"]) for each in remarks if each["kind"] == "call"] == [
        ("get_weather", {"city": "london"})
    ]
    # The history says what the player played.
    cut = [each for each in remarks if each["kind"] == "reply" and each["interruption"]]
    assert words(cut[0]["heard_text"]) == heard[1]
    assert tape.stat().st_size > 40 * 24_000
