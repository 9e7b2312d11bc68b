import pytest
import torch
from step1.config import Step1Config
from step1.engine.kv_cache import KVCache
from step1.model import Span, Step1Model
from step1.weights import expected_shapes

pytestmark = pytest.mark.unit

# Head counts that are not powers of two, and few heads a group, as well as many.
SHAPES = [(4, 2, 16), (6, 2, 16), (6, 3, 32), (2, 1, 64), (12, 1, 16)]


def make_model(heads, groups, head_dim, *, dtype=torch.float32, batch_invariant=True):
    torch.set_num_threads(1)
    config = Step1Config(
        hidden_size=heads * head_dim,
        intermediate_size=160,
        num_attention_heads=heads,
        num_attention_groups=groups,
        num_hidden_layers=2,
        vocab_size=128,
        max_seq_len=1024,
    )
    model = Step1Model(config, dtype=dtype, batch_invariant=batch_invariant)
    generator = torch.Generator().manual_seed(7)
    for name, shape in expected_shapes(config).items():
        tensor = torch.randn(shape, generator=generator)
        model.set_weight(name, tensor if len(shape) == 1 else tensor * shape[1] ** -0.5)
    return model


def make_cache(model, slots=4):
    return KVCache(model.config, slots=slots, max_len=1024, dtype=model.dtype, device=model.device)


def prompt(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 128, (length,), generator=generator).tolist()


def run_chunks(model, ids, sizes):
    cache = make_cache(model)
    rows, start = [], 0
    for size in sizes:
        chunk = ids[start : start + size]
        rows.append(model.forward(chunk, [Span(1, start, size)], cache, range(size)))
        start += size
    assert start == len(ids)
    return torch.cat(rows)


def reference_logits(model, ids):
    """The definition of the layer, one token and one head at a time, in float64."""
    config = model.config
    place = {name: model._place(name).double() for name in expected_shapes(config)}
    hidden = place["model.embed_tokens.weight"][ids]

    def norm(x, weight):
        return x / (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * weight

    slopes = model._slopes.double()
    for number in range(config.num_hidden_layers):
        p = {
            name.split(f"layers.{number}.")[1].removesuffix(".weight"): tensor
            for name, tensor in place.items()
            if f"layers.{number}." in name
        }
        x = norm(hidden, p["input_layernorm"])
        heads, dim = config.num_attention_heads, config.head_dim
        q = (x @ p["self_attn.q_proj"].T).view(-1, heads, dim)
        k = (x @ p["self_attn.k_proj"].T).view(-1, config.num_attention_groups, dim)
        v = (x @ p["self_attn.v_proj"].T).view(-1, config.num_attention_groups, dim)
        out = torch.zeros_like(q)
        for i in range(len(ids)):
            for h in range(heads):
                g = h // config.heads_per_group
                distance = torch.arange(i, -1, -1, dtype=torch.float64)
                scores = k[: i + 1, g] @ q[i, h] * dim**-0.5 - slopes[h] * distance.sqrt()
                out[i, h] = torch.softmax(scores, 0) @ v[: i + 1, g]
        hidden = hidden + out.flatten(1) @ p["self_attn.o_proj"].T
        x = norm(hidden, p["post_attention_layernorm"])
        gate, up = x @ p["mlp.gate_proj"].T, x @ p["mlp.up_proj"].T
        hidden = hidden + (gate * torch.sigmoid(gate) * up) @ p["mlp.down_proj"].T
    return norm(hidden, place["model.norm.weight"]) @ place["lm_head.weight"].T


@pytest.mark.parametrize(("heads", "groups", "head_dim"), SHAPES)
@pytest.mark.parametrize("batch_invariant", [True, False])
def test_the_fused_forward_computes_the_definition(heads, groups, head_dim, batch_invariant):
    model = make_model(heads, groups, head_dim, batch_invariant=batch_invariant)
    ids = prompt(23)
    reference = reference_logits(model, ids)
    fused = run_chunks(model, ids, [23])
    assert torch.allclose(fused.double(), reference, atol=2e-5)


@pytest.mark.parametrize(("heads", "groups", "head_dim"), SHAPES)
def test_chunks_never_change_a_bit(heads, groups, head_dim):
    model = make_model(heads, groups, head_dim)
    ids = prompt(600)
    whole = run_chunks(model, ids, [600])
    for sizes in ([300, 300], [1] * 20 + [250, 1, 70, 259], [256, 256, 88]):
        assert torch.equal(run_chunks(model, ids, sizes), whole)


@pytest.mark.parametrize(("heads", "groups", "head_dim"), SHAPES)
def test_neighbours_in_the_batch_never_change_a_bit(heads, groups, head_dim):
    model = make_model(heads, groups, head_dim)
    ids = prompt(300)
    alone = run_chunks(model, ids, [299, 1])[-1]
    for slots in ([0], [3], [0, 1, 2], [0, 3], [1, 2]):
        cache = make_cache(model)
        model.forward(ids[:299], [Span(slots[0], 0, 299)], cache, [])
        spans, tokens = [Span(slots[0], 299, 1)], [ids[299]]
        for number, slot in enumerate(slots[1:], start=1):
            other = prompt(200 + 90 * number, seed=number)
            model.forward(other, [Span(slot, 0, len(other))], cache, [])
            spans.append(Span(slot, len(other), 1))
            tokens.append(number)
        free = next(slot for slot in range(4) if slot not in slots)
        spans.append(Span(free, 0, 40))
        tokens += prompt(40, seed=9)
        assert torch.equal(model.forward(tokens, spans, cache, [0])[0], alone)


def test_a_slots_earlier_sequence_leaves_no_trace():
    model = make_model(6, 2, 16)
    fresh = run_chunks(model, prompt(30), [30])
    cache = make_cache(model)
    model.forward(prompt(500, seed=3), [Span(1, 0, 500)], cache, [])
    again = model.forward(prompt(30), [Span(1, 0, 30)], cache, range(30))
    assert torch.equal(fresh, again)


def test_an_exported_prefix_continues_like_the_original():
    model = make_model(6, 2, 16)
    ids = prompt(100)
    whole = run_chunks(model, ids, [100])
    cache = make_cache(model)
    model.forward(ids[:80], [Span(0, 0, 80)], cache, [])
    stored = cache.export(0, 80)
    other = make_cache(model)
    other.restore(2, stored, 60)
    tail = model.forward(ids[60:], [Span(2, 60, 40)], other, range(40))
    assert torch.equal(tail, whole[60:])


def test_bfloat16_stays_near_float32():
    exact = make_model(6, 2, 16)
    rough = make_model(6, 2, 16, dtype=torch.bfloat16)
    ids = prompt(40)
    difference = (run_chunks(exact, ids, [40]) - run_chunks(rough, ids, [40])).abs().max()
    assert 0 < float(difference) < 0.15


def test_partial_logits_are_columns_of_the_whole_whatever_the_batch():
    model = make_model(6, 2, 16)
    ids = ((3, 4), (40, 70), (127, 128))
    columns = [3, *range(40, 70), 127]
    hidden = model.hidden_states(prompt(30), [Span(0, 0, 30)], make_cache(model), range(30))
    whole = model.logits(hidden)
    partial = model.logits(hidden, ids)
    assert torch.allclose(partial, whole[:, columns], atol=1e-5)
    for row in range(30):
        assert torch.equal(model.logits(hidden[row : row + 1], ids)[0], partial[row])


def test_an_unknown_weight_is_refused():
    with pytest.raises(KeyError):
        make_model(4, 2, 16).set_weight("model.layers.0.self_attn.rotary.inv_freq", torch.zeros(1))
