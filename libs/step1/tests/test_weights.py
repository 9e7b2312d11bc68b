import json
import struct

import pytest
import torch
from safetensors.torch import save_file
from step1.config import Step1Config
from step1.engine.kv_cache import KVCache
from step1.model import Span, Step1Model
from step1.weights import WeightsError, check_weights, expected_shapes, iter_weights

pytestmark = pytest.mark.unit

CONFIG = Step1Config(
    hidden_size=32,
    intermediate_size=48,
    num_attention_heads=4,
    num_attention_groups=2,
    num_hidden_layers=2,
    vocab_size=64,
    max_seq_len=128,
)


def tensors(dtype=torch.bfloat16, config=CONFIG):
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(shape, generator=generator).to(dtype)
        for name, shape in expected_shapes(config).items()
    }


def write_sharded(folder, parts):
    weight_map = {}
    for number, part in enumerate(parts, start=1):
        name = f"model-{number:05}.safetensors"
        save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def halves(whole):
    names = list(whole)
    middle = len(names) // 2
    return [{n: whole[n] for n in names[:middle]}, {n: whole[n] for n in names[middle:]}]


def logits_of(folder, config=CONFIG):
    model = Step1Model.load(folder, config=config)
    cache = KVCache(config, slots=1, max_len=16, dtype=torch.float32, device=model.device)
    return model.forward([1, 2, 3], [Span(0, 0, 3)], cache, [0, 1, 2])


def test_one_file_indexed_shards_and_bare_shards_load_the_same(tmp_path):
    whole = tensors()
    folders = [tmp_path / name for name in ("one", "indexed", "bare")]
    for folder in folders:
        folder.mkdir()
    save_file(whole, folders[0] / "model.safetensors")
    write_sharded(folders[1], halves(whole))
    for number, part in enumerate(halves(whole)):
        save_file(part, folders[2] / f"model-0000{number}.safetensors")
    reference = logits_of(folders[0])
    assert torch.equal(reference, logits_of(folders[1]))
    assert torch.equal(reference, logits_of(folders[2]))


def test_untied_head_is_the_heads_own_and_tied_head_is_the_embedding(tmp_path):
    whole = tensors(torch.float32)
    save_file(whole, tmp_path / "model.safetensors")
    untied = logits_of(tmp_path)
    tied_config = Step1Config(**{**_fields(CONFIG), "tie_word_embeddings": True})
    tied = logits_of(tmp_path, tied_config)
    assert not torch.allclose(untied, tied)
    whole["lm_head.weight"] = whole["model.embed_tokens.weight"].clone()
    save_file(whole, tmp_path / "model.safetensors")
    assert torch.equal(logits_of(tmp_path), tied)


def _fields(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_published_dtype_is_cast_to_the_one_asked_for(tmp_path, dtype):
    save_file(tensors(dtype), tmp_path / "model.safetensors")
    loaded = dict(iter_weights(tmp_path, CONFIG, torch.float32))
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert set(loaded) == set(expected_shapes(CONFIG))


def test_a_missing_tensor_names_itself(tmp_path):
    whole = tensors()
    del whole["model.layers.1.mlp.up_proj.weight"]
    save_file(whole, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        check_weights(tmp_path, CONFIG)


def test_a_misshapen_tensor_names_itself_and_both_shapes(tmp_path):
    whole = tensors()
    whole["model.norm.weight"] = torch.zeros(31)
    save_file(whole, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.norm\.weight has shape \[31\].*\[32\]"):
        check_weights(tmp_path, CONFIG)


def test_an_integer_tensor_names_itself_and_its_dtype(tmp_path):
    whole = tensors()
    whole["lm_head.weight"] = whole["lm_head.weight"].to(torch.int8)
    save_file(whole, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"lm_head\.weight has dtype I8"):
        check_weights(tmp_path, CONFIG)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_names_itself(tmp_path, value):
    whole = tensors()
    whole["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(whole, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"up_proj\.weight holds values that are not finite"):
        Step1Model.load(tmp_path, config=CONFIG)


def test_a_truncated_file_names_the_tensor_that_is_cut_off(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(tensors(), file)
    data = file.read_bytes()
    file.write_bytes(data[:-10])
    with pytest.raises(WeightsError, match=r"tensor \S+ is truncated") as caught:
        Step1Model.load(tmp_path, config=CONFIG)
    assert "\n" not in str(caught.value)
    file.write_bytes(data[:100])
    with pytest.raises(WeightsError, match="truncated inside its header"):
        check_weights(tmp_path, CONFIG)
    file.write_bytes(b"")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        check_weights(tmp_path, CONFIG)


def rewrite(file, change):
    """Lets `change` edit the header of a safetensors file."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def as_float32(header):
    header["model.norm.weight"]["dtype"] = "F32"


def with_a_gap(header):
    entry = header["model.norm.weight"]
    entry["data_offsets"] = [at + 2 for at in entry["data_offsets"]]


def with_an_overlap(header):
    entry = header["model.norm.weight"]
    entry["data_offsets"] = [at - 2 for at in entry["data_offsets"]]


def unexpected_and_short(header):
    header["extra"] = {"dtype": "I64", "shape": [2], "data_offsets": [0, 15]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (as_float32, r"tensor model\.norm\.weight has 64 bytes, F32 \[32\] takes 128"),
        (with_a_gap, r"tensor model\.norm\.weight begins at byte"),
        (with_an_overlap, r"tensor model\.norm\.weight begins at byte"),
        (unexpected_and_short, r"tensor extra has 15 bytes, I64 \[2\] takes 16"),
    ],
)
def test_a_header_that_contradicts_itself_names_the_tensor(tmp_path, change, message):
    file = tmp_path / "model.safetensors"
    save_file(tensors(), file)
    rewrite(file, change)
    with pytest.raises(WeightsError, match=message) as caught:
        check_weights(tmp_path, CONFIG)
    assert "model.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_ends_with_its_last_tensor(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(tensors(), file)
    file.write_bytes(file.read_bytes() + b"xx")
    with pytest.raises(WeightsError, match=r"model\.safetensors: 2 bytes follow its last tensor"):
        check_weights(tmp_path, CONFIG)


def test_a_header_of_endless_brackets_names_the_file(tmp_path):
    text = b"[" * 100_000
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(WeightsError, match=r"model\.safetensors: not a safetensors file"):
        check_weights(tmp_path, CONFIG)


def test_a_layer_beyond_the_configs_names_its_tensor(tmp_path):
    deeper = Step1Config(**{**_fields(CONFIG), "num_hidden_layers": 3})
    save_file(tensors(config=deeper), tmp_path / "model.safetensors")
    check_weights(tmp_path, deeper)
    with pytest.raises(WeightsError, match=r"model\.layers\.2\.\S+ is there.* 2 layers"):
        check_weights(tmp_path, CONFIG)


def test_a_missing_shard_names_itself_and_what_it_held(tmp_path):
    write_sharded(tmp_path, halves(tensors()))
    (tmp_path / "model-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002\.safetensors: missing, it holds model"):
        check_weights(tmp_path, CONFIG)


@pytest.mark.parametrize("place", [1, None, True])
def test_an_index_whose_place_is_no_text_names_the_tensor(tmp_path, place):
    index = {"weight_map": {"model.norm.weight": "a.safetensors", "lm_head.weight": place}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(WeightsError, match=r"index\.json: lm_head\.weight lies in no file"):
        check_weights(tmp_path, CONFIG)


def test_an_index_that_points_outside_the_folder_is_refused(tmp_path):
    index = {"weight_map": {"lm_head.weight": "../secret.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="outside the folder"):
        check_weights(tmp_path, CONFIG)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    first, second = halves(tensors())
    second["model.embed_tokens.weight"] = first["model.embed_tokens.weight"]
    save_file(first, tmp_path / "a.safetensors")
    save_file(second, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"embed_tokens\.weight is also in a\.safetensors"):
        check_weights(tmp_path, CONFIG)


def test_pickles_are_never_opened(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin: pickle files are not loaded"):
        check_weights(tmp_path, CONFIG)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(WeightsError, match="no safetensors file"):
        check_weights(tmp_path, CONFIG)
