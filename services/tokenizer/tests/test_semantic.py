"""The ONNX speech tokenizer: damaged files name themselves, batches equal single calls."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from paraformer.checkpoint import CheckpointError
from parley_tokenizer.engine.batch import TokenizerModels
from parley_tokenizer.linguistic import CODEBOOK_FILE, read_codebook
from parley_tokenizer.seeded import write_seeded
from parley_tokenizer.segments import SegmentPlan, SemanticSlots
from parley_tokenizer.semantic import MODEL_FILE, SemanticTokenizer, SpeechTokenizer

pytestmark = pytest.mark.unit


def test_batches_equal_single_calls(models: TokenizerModels) -> None:
    model = models.semantic.model
    windows = np.random.default_rng(1).uniform(-1, 1, (5, 128, 77)).astype(np.float32)
    assert model.batched
    alone = np.concatenate([model.encode(each[None]) for each in windows])
    assert np.array_equal(model.encode(windows), alone)
    assert alone.shape == (5, 20)


def test_a_graph_that_takes_no_batches_runs_one_by_one(folder: Path, tmp_path: Path) -> None:
    """A reshape to a batch of one is what an exporter may leave behind."""
    graph = onnx.load(folder / MODEL_FILE)
    for node in graph.graph.node:
        if node.op_type == "LayerNormalization":
            shape = onnx.numpy_helper.from_array(np.array([1, -1, 64]), "batch_of_one")
            graph.graph.initializer.append(shape)
            reshape = onnx.helper.make_node("Reshape", [node.input[0], shape.name], ["reshaped"])
            node.input[0] = "reshaped"
            graph.graph.node.insert(list(graph.graph.node).index(node), reshape)
            break
    onnx.save(graph, tmp_path / MODEL_FILE)
    rigid, free = SpeechTokenizer(tmp_path / MODEL_FILE), SpeechTokenizer(folder / MODEL_FILE)
    windows = np.random.default_rng(1).uniform(-1, 1, (3, 128, 40)).astype(np.float32)
    assert not rigid.batched
    assert np.array_equal(rigid.encode(windows), free.encode(windows))


def test_damaged_files_name_themselves(folder: Path, tmp_path: Path) -> None:
    def fails(wanted: str) -> None:
        with pytest.raises(CheckpointError, match=wanted) as caught:
            SpeechTokenizer(tmp_path / MODEL_FILE)
        assert "\n" not in str(caught.value)

    fails("speech_tokenizer_v1.onnx is missing")
    content = (folder / MODEL_FILE).read_bytes()
    (tmp_path / MODEL_FILE).write_bytes(content[: len(content) // 2])
    fails("speech_tokenizer_v1.onnx is truncated")
    graph = onnx.load(folder / MODEL_FILE)
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 80
    onnx.save(graph, tmp_path / MODEL_FILE)
    fails("speech_tokenizer_v1.onnx")
    with pytest.raises(CheckpointError, match="CUDAExecutionProvider"):
        SpeechTokenizer(folder / MODEL_FILE, device="cuda")


@pytest.mark.parametrize(
    ("kind", "attributes", "told"),
    [
        ("Add", {}, "30 codes up to"),
        ("Concat", {"axis": 1}, "60 codes up to"),
    ],
)
def test_a_tokenizer_of_another_codebook_or_rate_is_refused(
    folder: Path, tmp_path: Path, kind: str, attributes: dict[str, int], told: str
) -> None:
    """Those of other releases have the same file name and the same inputs."""
    graph = onnx.load(folder / MODEL_FILE)
    (last,) = (node for node in graph.graph.node if list(node.output) == ["indices"])
    last.output[0] = "nearest"
    inputs = ["nearest", "nearest"]
    if kind == "Add":
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array(2465), "beyond"))
        inputs[1] = "beyond"
    graph.graph.node.append(onnx.helper.make_node(kind, inputs, ["indices"], **attributes))
    onnx.save(graph, tmp_path / MODEL_FILE)
    with pytest.raises(CheckpointError, match=rf"is another tokenizer: {told}"):
        SpeechTokenizer(tmp_path / MODEL_FILE)


def test_windows_that_know_their_place_hear_what_the_whole_recording_says(folder: Path) -> None:
    """Cut at a code, with the network's positions moved as far, whole context gives whole codes."""
    plain, placed = SemanticTokenizer.load(folder), SemanticTokenizer.load(folder, placed=True)
    wave = np.random.default_rng(2).standard_normal(16000 * 3).astype(np.float32) * 0.1
    assert placed.encode(wave) == plain.encode(wave)
    features = plain.features(wave)[0][None]
    at_start = placed.model.encode(features)
    assert not np.array_equal(placed.model.encode(features, 100), at_start)
    with pytest.raises(ValueError, match="cannot be told"):
        plain.model.encode(features, 100)


def test_placed_streams_do_not_mix_and_default_ones_begin_at_position_0(folder: Path) -> None:
    tokenizer = SemanticTokenizer.load(folder, placed=True)
    rng = np.random.default_rng(3)
    pitches = rng.uniform(100, 4000, (2, 48)).repeat(1920, axis=1)
    loudness = rng.uniform(0, 0.5, (2, 48)).repeat(1920, axis=1)
    waves = (loudness * np.sin(np.cumsum(2 * np.pi * pitches / 16000, axis=1))).astype(np.float32)

    def codes(plan: SegmentPlan, together: bool) -> list[list[int]]:
        """The second stream begins three blocks later."""
        found: list[list[int]] = [[], []]
        slots = SemanticSlots(tokenizer.model, plan, 2, 3840)
        for block in range(27):
            live = [row for row in range(2) if 0 <= block - 3 * row < 24]
            for group in [live] if together else [[row] for row in live]:
                parts = [
                    waves[row][(block - 3 * row) * 3840 : (block - 3 * row + 1) * 3840]
                    for row in group
                ]
                for row, new in zip(group, slots.step(group, parts), strict=True):
                    found[row] += new
        return found

    placed, plain = SegmentPlan(placed=True), SegmentPlan()
    assert codes(placed, True) == codes(placed, False)
    assert codes(placed, True) != codes(plain, True)


def test_a_graph_without_positions_cannot_be_placed(folder: Path, tmp_path: Path) -> None:
    graph = onnx.load(folder / MODEL_FILE)
    for each in [*graph.graph.initializer, *graph.graph.node]:
        if "positional_embedding" in each.name:
            each.name = "renamed"
    for node in graph.graph.node:
        node.input[:] = ["renamed" if "positional" in name else name for name in node.input]
    onnx.save(graph, tmp_path / MODEL_FILE)
    with pytest.raises(CheckpointError, match="positions cannot be moved: 0 tables"):
        SpeechTokenizer(tmp_path / MODEL_FILE, placed=True)


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.zeros((1024, 32), np.float32), "shape"),
        (np.zeros((2000, 64), np.float32), "shape"),
        (np.full((8, 64), np.nan, np.float32), "finite"),
        (np.zeros((8, 64), np.int64), "finite floats"),
    ],
)
def test_a_wrong_codebook_is_refused(tmp_path: Path, array: np.ndarray, wanted: str) -> None:
    np.save(tmp_path / CODEBOOK_FILE, array)
    with pytest.raises(CheckpointError, match=wanted):
        read_codebook(tmp_path / CODEBOOK_FILE, 64)


def test_an_archive_in_the_codebooks_place_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / CODEBOOK_FILE
    with path.open("wb") as file:
        np.savez(file, codebook=np.load(folder / CODEBOOK_FILE))
    with pytest.raises(CheckpointError, match=r"linguistic_tokenizer\.npy is an archive"):
        read_codebook(path, 64)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"linguistic_tokenizer\.npy is truncated"):
        read_codebook(path, 64)


def test_a_truncated_codebook_is_refused(folder: Path, tmp_path: Path) -> None:
    content = (folder / CODEBOOK_FILE).read_bytes()
    (tmp_path / CODEBOOK_FILE).write_bytes(content[:5000])
    with pytest.raises(CheckpointError, match="truncated"):
        read_codebook(tmp_path / CODEBOOK_FILE, 64)


@pytest.mark.parametrize(
    "plan",
    [
        {"segment_s": 0.0},
        {"segment_s": 0.05},
        {"left_context_s": -0.04},
        {"segment_s": 20.0, "left_context_s": 12.0},
    ],
)
def test_a_plan_that_does_not_fit_the_network_is_refused(plan: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"0\.04|positive|30 s"):
        SegmentPlan(**plan)


def test_the_same_seed_writes_the_same_weights(folder: Path, tmp_path: Path) -> None:
    write_seeded(tmp_path)
    for name in (MODEL_FILE, CODEBOOK_FILE):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
