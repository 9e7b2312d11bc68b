from pathlib import Path

import pytest
from parley_core.hyperpyyaml import ConfigError, Section, load, mel_analysis

pytestmark = pytest.mark.unit

TEXT = """
rate: 22050
flow: !new:os.system
    command: !ref <rate>
    eps: 1e-06
    whole: 5.0
    endless: .inf
    unknown: nan
    sizes: [3, 7]
    rows: [[1, 2], [3]]
    inner: !name:a.b.Class
        center: False
loop: !ref <loop>
"""


@pytest.fixture
def top(tmp_path: Path) -> Section:
    path = tmp_path / "cosyvoice.yaml"
    path.write_text(TEXT)
    return load(path)


def test_tags_are_data_and_references_are_looked_up(top: Section) -> None:
    flow = top.section("flow")
    assert flow.integer("command") == 22050
    assert flow.number("eps") == 1e-6
    assert flow.integer("whole") == 5
    assert flow.integers("sizes") == (3, 7)
    assert flow.integer_rows("rows") == ((1, 2), (3,))
    inner = flow.section("inner")
    assert inner.class_name == "Class"
    assert inner.flag("center") is False
    assert [key for key, _ in top.sections()] == ["flow"]


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda top: top.integer("nothing"), "nothing: missing"),
        (lambda top: top.integer("loop"), "loop: cannot resolve !ref <loop>"),
        (lambda top: top.section("rate"), "rate: expected a mapping"),
        (lambda top: top.integer("flow"), "flow: expected a plain value, found !new:os.system"),
        (lambda top: top.section("flow").integer("eps"), "flow.eps: expected a whole number"),
        (lambda top: top.section("flow").integer("endless"), "flow.endless: expected a number"),
        (lambda top: top.section("flow").number("unknown"), "flow.unknown: expected a number"),
        (lambda top: top.section("flow").integers("rows"), "flow.rows: expected a list of whole"),
        (lambda top: top.section("flow").flag("eps"), "flow.eps: expected true or false"),
        (lambda top: top.section("flow").demand("eps", 1), "flow.eps: only 1 is supported"),
        (
            lambda top: top.section("flow").section("inner").demand_class("Other"),
            "flow.inner: Class is not a Other",
        ),
    ],
)
def test_a_key_that_does_not_fit_is_named_in_full(top: Section, read, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(top)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("feat_extractor: {n_fft: 1}\nother: {n_fft: 2, num_mels: 80, hop_size: 256}", 1),
        ("first: {n_fft: 1}\nother: !name:a.b {n_fft: 2, num_mels: 80, hop_size: 256}", 2),
    ],
)
def test_the_mel_settings_are_found_by_their_name_or_else_their_keys(
    tmp_path: Path, text: str, size: int
) -> None:
    path = tmp_path / "cosyvoice.yaml"
    path.write_text(text)
    assert mel_analysis(load(path)).integer("n_fft") == size


def test_mel_settings_that_are_nowhere_are_named(top: Section) -> None:
    with pytest.raises(ConfigError, match="feat_extractor: missing"):
        mel_analysis(top)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: [", "not YAML"), (b"\xff\xfe\xfa", "not YAML"), (b"- 1", "expected a mapping")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "cosyvoice.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(path)
