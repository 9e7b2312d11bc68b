"""Runs the reference on the parity checkpoint and writes `data/funasr.npz`. Not a test.

    pip install --no-deps --target DIR funasr rapidfuzz six
    python make_funasr_data.py DIR

Only classes of the reference are used: the chunk loop of `ParaformerStreaming.inference`, its
encoder, predictor, decoder and text post-processing. Its imports for training, and torchaudio, are
stubbed; filter banks come from kaldi-native-fbank instead.
"""

import importlib.abc
import importlib.machinery
import sys
import tempfile
import types
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import parity_checkpoint as parity
import torch

OPTIONS = {
    "chunk_size": [0, 10, 5],
    "encoder_chunk_look_back": 4,
    "decoder_chunk_look_back": 1,
    "encoder_conf": parity.CONFIG["encoder_conf"],
    "frontend_conf": parity.CONFIG["frontend_conf"],
    "device": "cpu",
}
LENGTHS = (33600, 20123, 9600, 10559, 10560, 9599, 2000, 400)


class _Stub(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Stub(f"{self.__name__}.{name}")

    def __call__(self, *args, **kwargs):
        return self


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    names = frozenset({"librosa", "torchaudio", "jaconv", "kaldiio", "hydra", "omegaconf", "jieba"})

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = _Stub(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module):
        pass


def fbank(waveform, **options):
    """torchaudio's signature, kaldi-native-fbank's numbers."""
    settings = knf.FbankOptions()
    settings.frame_opts.dither = options["dither"]
    settings.frame_opts.window_type = options["window_type"]
    settings.frame_opts.samp_freq = options["sample_frequency"]
    settings.mel_opts.num_bins = options["num_mel_bins"]
    settings.energy_floor = options["energy_floor"]
    online = knf.OnlineFbank(settings)
    online.accept_waveform(16000, waveform[0].tolist())
    online.input_finished()
    frames = [online.get_frame(i) for i in range(online.num_frames_ready)]
    return torch.from_numpy(np.stack(frames))


class _Tokens:
    def ids2tokens(self, ids):
        return [parity.TOKENS[i] for i in ids]


def main(site: str) -> None:
    sys.meta_path.insert(0, _Stubs())
    sys.path.append(site)
    import funasr.frontends.wav_frontend as frontends
    import funasr.models.paraformer_streaming.model as reference
    from funasr.models.paraformer import cif_predictor, decoder  # noqa: F401 - registers
    from funasr.models.scama import encoder  # noqa: F401 - registers

    frontends.kaldi.fbank = fbank
    model = reference.ParaformerStreaming(
        **{
            key: parity.CONFIG[key]
            for key in ("encoder", "encoder_conf", "decoder", "decoder_conf")
        },
        predictor=parity.CONFIG["predictor"],
        predictor_conf=parity.CONFIG["predictor_conf"],
        ctc_weight=0.0,
        input_size=560,
        vocab_size=len(parity.TOKENS),
    ).eval()
    wanted = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if name.split(".")[0] in ("encoder", "predictor", "decoder")
    }
    model.load_state_dict({n: parity.tensor(n, s) for n, s in wanted.items()}, strict=False)

    folder = Path(tempfile.mkdtemp())
    parity.write(folder, wanted)
    out = {"shapes": np.array([f"{n}:{','.join(map(str, s))}" for n, s in wanted.items()])}
    frontend = frontends.WavFrontendOnline(
        cmvn_file=str(folder / "am.mvn"), **parity.CONFIG["frontend_conf"]
    )

    seen: dict[str, list[np.ndarray]] = {}

    def spy(owner, name, key, pick):
        inner = getattr(owner, name)

        def outer(*args, **kwargs):
            result = inner(*args, **kwargs)
            seen.setdefault(key, []).append(pick(result).detach().numpy()[0].copy())
            return result

        setattr(owner, name, outer)

    def extract(data, frontend, cache, is_final, **_):
        (
            features,
            lengths,
        ) = frontend(data[0][None], torch.tensor([data[0].numel()]), cache=cache, is_final=is_final)
        seen.setdefault("features", []).append(features[0].numpy().copy())
        return features, lengths

    reference.extract_fbank = extract
    reference.load_audio_text_image_video = _load
    spy(model.encoder, "forward_chunk", "encoder", lambda result: result[0])
    spy(model.decoder, "forward_chunk", "logits", lambda result: result)

    generator = np.random.default_rng(5)
    for index, length in enumerate(LENGTHS):
        time = np.arange(length) / 16000
        phase = 2 * np.pi * np.cumsum(300 + 250 * np.sin(7 * time + index)) / 16000
        tone = sum(np.sin(k * phase) * np.sin((3 + k) * time + k) for k in range(1, 9)) / 8
        burst = generator.standard_normal(length) * (np.sin(11 * time) > 0.6)
        pcm = ((tone + 0.2 * burst) * 9000).astype(np.int16)
        seen.clear()
        ids: list[int] = []
        _Tokens.ids2tokens = lambda self, found, ids=ids: (
            ids.extend(found) or [parity.TOKENS[i] for i in found]
        )
        with torch.inference_mode():
            result, _ = model.inference(
                [torch.from_numpy(pcm / np.float32(32768))],
                key=["k"], tokenizer=_Tokens(), frontend=frontend, cache={}, is_final=True,
                **OPTIONS,
            )  # fmt: skip
        out[f"{index}.pcm"] = pcm
        out[f"{index}.ids"] = np.array(ids, np.int64)
        out[f"{index}.text"] = np.array(result[0]["text"])
        for key in ("features", "encoder", "logits"):
            parts = seen.get(key, [])
            if key == "features" and index > 0:
                continue
            out[f"{index}.{key}"] = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
        print(length, len(ids), result[0]["text"])
    target = Path(__file__).parent / "data" / "funasr.npz"
    target.parent.mkdir(exist_ok=True)
    np.savez_compressed(target, **out)
    print(target, target.stat().st_size)


def _load(data, cache, **_):
    cache["is_final"] = True
    return data


if __name__ == "__main__":
    main(sys.argv[1])
