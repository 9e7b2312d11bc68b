"""Proof and figures of a frozen `Step-Audio-Tokenizer` folder, by the serving tokenizer.

Features, encoder rows and codes of training against serving; what a code alone still says about
the phone (each code answers with its most frequent phone); codes of streams against whole
recordings.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
from corpus import Corpus
from linguistic import Batches as LinguisticBatches
from parley_tokenizer.linguistic import ENCODER_FOLDER, LinguisticTokenizer
from parley_tokenizer.segments import SegmentPlan, SemanticSlots
from parley_tokenizer.semantic import SemanticTokenizer
from recogniser import frozen_encoder
from semantic import Batches as SemanticBatches
from semantic import SemanticTrainer


@torch.inference_mode()
def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--utterances", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus(options.corpus)
    serving = LinguisticTokenizer.load(options.tokenizer)
    encoder = frozen_encoder(options.tokenizer / ENCODER_FOLDER)
    batches = LinguisticBatches(corpus)
    batches.shift, batches.scale = serving.frontend.shift.numpy(), serving.frontend.scale.numpy()
    rows, same, total = 0.0, 0, 0
    features_apart = 0.0
    for i in batches.test[: options.utterances]:
        trained = torch.from_numpy(batches.features(i, None))
        served = serving.frontend.encode(torch.from_numpy(corpus.samples(i)))
        # The serving front end drops up to five filter bank frames at the very end.
        count = min(len(trained), len(served)) - 1
        apart = (trained[:count] - served[:count]).abs().max().item()
        features_apart = max(features_apart, apart)
        hidden = encoder(served[None], torch.tensor([len(served)]))[0]
        direct = serving.encoder.encode(served)
        rows = max(rows, (hidden - direct).abs().max().item())
        codes = serving.encode(corpus.samples(i))
        same += int((serving.quantize(hidden) == torch.tensor(codes)).sum())
        total += len(codes)
    print(f"linguistic features apart by at most {features_apart:.2e}, encoder rows {rows:.2e}")
    print(f"linguistic codes equal {same}/{total}")

    heard = SemanticBatches(corpus)
    model = SemanticTrainer(len(heard.phones)).eval()
    model.load_state_dict(torch.load(options.work / "semantic.state")["model"])
    semantic = SemanticTokenizer.load(options.tokenizer)
    print("semantic network takes batches:", semantic.model.batched)
    codes_of = {i: semantic.encode(corpus.samples(i)) for i in heard.test[: options.utterances]}
    _phones_from_codes(corpus, heard, semantic, serving)
    agree = count = 0
    for i, whole in codes_of.items():
        slots = SemanticSlots(semantic.model, SegmentPlan(), 1, 3840)
        samples, streamed = corpus.samples(i), []
        for at in range(0, len(samples), 3840):
            streamed += slots.step([0], [samples[at : at + 3840]])[0]
        if len(samples) % 3840 == 0:
            streamed += slots.step([0], [samples[:0]])[0]
        agree += int(np.equal(streamed, whole).sum())
        count += len(whole)
    print(f"semantic codes of streams equal to those of recordings {agree}/{count}")


def _phones_from_codes(
    corpus: Corpus,
    heard: SemanticBatches,
    semantic: SemanticTokenizer,
    linguistic: LinguisticTokenizer,
) -> None:
    branches = (
        ("linguistic", linguistic.encode, 0.0125, 0.06),
        ("semantic", semantic.encode, 0.0, 0.04),
    )
    for name, encode, first, step in branches:
        table: dict[int, Counter[str]] = defaultdict(Counter)
        right = count = 0
        for train in (True, False):
            for i in heard.train[::12] if train else heard.test[:100]:
                phones = corpus.utterances[i].phones
                ends = np.array([end for _, end in phones])
                codes = encode(corpus.samples(i))
                middle = np.searchsorted(ends, first + step * np.arange(len(codes)))
                for code, at in zip(codes, np.minimum(middle, len(phones) - 1), strict=True):
                    if train:
                        table[code][phones[at][0]] += 1
                    else:
                        count += 1
                        right += (
                            bool(table[code]) and table[code].most_common(1)[0][0] == phones[at][0]
                        )
        print(f"{name} code alone tells the phone: {right / count:.3f}  n={count} codes")


if __name__ == "__main__":
    main()
