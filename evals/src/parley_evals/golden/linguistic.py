"""Linguistic branch: features, encoder frames and codes, offline and in packets (golden kind)."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from parley_tokenizer.linguistic import LinguisticSlots, LinguisticTokenizer

from parley_evals.golden.case import Check, GoldenCase

Wave = NDArray[np.float32]


def compare(case: GoldenCase) -> Iterator[Check]:
    """All stored quantities; packets go through the slots that serve streams."""
    tokenizer = LinguisticTokenizer.load(case.checkpoint())
    for key in case.outputs:
        yield from _compare_output(case, tokenizer, key)
    yield from case.wanted(case.variants(".audio16k"), "offline.codes")
    yield from _compare_streams(case, tokenizer)
    yield from _compare_lengths(case, tokenizer)


def _audio(case: GoldenCase, name: str) -> Wave:
    audio: Wave = case.inputs[f"{name}.audio16k"][0]
    return audio


def _compare_output(case: GoldenCase, tokenizer: LinguisticTokenizer, key: str) -> Iterator[Check]:
    # Names of signals may hold dots.
    names = [name for name in case.variants(".audio16k") if key.startswith(f"{name}.")]
    name = max(names, key=len, default=key.partition(".")[0])
    quantity = key.removeprefix(f"{name}.")
    golden = case.outputs[key]
    if name == "block_test":
        yield from _compare_block(case, tokenizer, key)
    elif quantity == "offline.codes":
        yield case.equal(key, tokenizer.encode(_audio(case, name)), golden)
    elif quantity == "offline.feats":
        features = tokenizer.frontend.encode(torch.from_numpy(_audio(case, name)))
        yield case.close(key, features, golden, case.tolerance("feats_atol"))
        frames = tokenizer.encoder.encode(features)
        kept = case.outputs[f"{name}.offline.enc_kept"]
        tolerance = case.tolerance("enc_atol_from_audio")
        yield case.close(f"{name}: frames from audio", frames, kept, tolerance)
    elif quantity == "offline.enc_kept":
        features = torch.from_numpy(case.outputs[f"{name}.offline.feats"])
        frames = tokenizer.encoder.encode(features)
        yield case.close(key, frames, golden, case.tolerance("enc_atol_from_given_feats"))
    elif quantity.endswith(".enc_full"):
        # The first rows of a call repeat earlier frames with other neighbours; only the new ones
        # are kept.
        call = int(quantity.split(".")[-2].removeprefix("call"))
        features = torch.from_numpy(case.outputs[f"{name}.offline.feats"])
        chunk = tokenizer.encoder.chunk
        frames = tokenizer.encoder.encode(features)[call * chunk.frames :][: chunk.frames]
        tolerance = case.tolerance("enc_atol_from_given_feats")
        yield case.close(f"{key}: new rows", frames, golden[chunk.left_context :], tolerance)
    elif ".enc_kept" in quantity:
        features = tokenizer.frontend.encode(torch.from_numpy(_audio(case, name)))
        tolerance = case.tolerance("enc_atol_from_audio")
        yield case.close(key, tokenizer.encoder.encode(features), golden, tolerance)
    elif quantity.startswith("WavFrontend_full_utterance"):
        # The reference's offline front end keeps frames at the tail that its own tokenizer drops.
        features = tokenizer.frontend.encode(torch.from_numpy(_audio(case, name)))
        common = golden[: len(features)]
        yield case.close(f"{key}: common", features, common, case.tolerance("feats_atol"))
    elif quantity.startswith("fbank80"):
        frames = tokenizer.frontend.fbank(torch.from_numpy(_audio(case, name))[None])[0]
        yield case.close(key, frames, golden, case.tolerance("feats_atol"))
    else:
        yield Check(case.name, f"{key}: unknown quantity", np.inf, 0.0)


def _compare_block(case: GoldenCase, tokenizer: LinguisticTokenizer, key: str) -> Iterator[Check]:
    """One layer called twice with its cache: the second call sees the first one's rows."""
    encoder = tokenizer.encoder
    rows = torch.from_numpy(case.inputs["block_test.x"])
    new = encoder.chunk.frames
    cache = encoder.new_cache(1)
    valid = torch.ones(rows.shape[:2], dtype=torch.bool)
    lengths = torch.tensor([new])
    layer = encoder.encoders[0]
    with torch.inference_mode():
        outputs = []
        for call, x in enumerate((rows, rows * 0.5)):
            cache.rows[:] = min(call * new, encoder.chunk.cache_rows)
            mask = encoder._attention_mask(cache.rows, valid)
            kept = encoder._kept_rows(lengths)
            outputs.append(layer(x, cache.keys[1], cache.values[1], mask, valid, kept))
    tolerance = case.tolerance("enc_atol_from_given_feats")
    golden = case.outputs[key]
    if key.endswith("call1"):
        yield case.close(key, outputs[0], golden, tolerance)
    elif "call2_with_cache" in key:
        yield case.close(key, outputs[1], golden, tolerance)
    else:
        newest = cache.keys[1][:, :, -golden.shape[2] :]
        yield case.close(key, newest, golden, tolerance)


def _compare_streams(case: GoldenCase, tokenizer: LinguisticTokenizer) -> Iterator[Check]:
    """Packets of every plan, cut into blocks as the serving stream does."""
    block = tokenizer.block_samples
    for session in case.rows("streams.json"):
        audio = _audio(case, session["audio"])[: session["used_samples"]]
        slots = LinguisticSlots(tokenizer, 1)
        taken = position = 0
        ours: list[list[int]] = []
        for packet in session["packets"]:
            position += packet["samples"]
            codes: list[int] = []
            while position - taken >= block:
                codes += slots.step([0], [audio[taken : taken + block]])[0]
                taken += block
            if packet["is_final"]:
                codes += slots.step([0], [audio[taken:position]])[0]
            ours.append(codes)
        golden = [packet["codes"] for packet in session["packets"]]
        yield case.same(f"stream {session['audio']}/{session['plan']}", ours, golden)


def _compare_lengths(case: GoldenCase, tokenizer: LinguisticTokenizer) -> Iterator[Check]:
    """Number of codes at every scanned length; where the reference raised, there is none."""
    rows = [row for row in case.table("length_scan.json")["rows"] if isinstance(row[1], int)]
    audio = np.zeros(max(row[0] for row in rows), np.float32)
    ours = [len(tokenizer.frontend.encode(torch.from_numpy(audio[: row[0]]))) for row in rows]
    yield case.same(f"code counts at {len(rows)} lengths", ours, [row[1] for row in rows])
