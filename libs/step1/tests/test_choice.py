import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from step1.config import ConfigError, Step1Config
from step1.engine.choice import load_engine
from step1.engine.settings import EngineServiceSettings
from step1.engine.vllm_engine import VllmEngine
from step1.weights import WeightsError

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(chat_folder, tmp_path) -> Path:
    return Path(shutil.copytree(chat_folder, tmp_path / "copy"))


def change_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


async def load(folder, engine):
    settings = EngineServiceSettings(weights=folder, engine=engine)
    return await load_engine(settings, Step1Config.load(folder))


@pytest.mark.parametrize("engine", ["torch", "vllm"])
@pytest.mark.parametrize("part", ["self_attn.k_proj", "mlp.up_proj", "input_layernorm"])
async def test_no_engine_is_made_of_a_checkpoint_that_lacks_a_tensor(folder, engine, part):
    name = f"model.layers.1.{part}.weight"
    file = folder / "model.safetensors"
    whole = load_file(file)
    del whole[name]
    save_file(whole, file)
    with pytest.raises(WeightsError, match=f"tensor {name} is missing") as caught:
        await load(folder, engine)
    assert "\n" not in str(caught.value)


async def test_vllm_takes_a_whole_checkpoint(folder):
    assert isinstance(await load(folder, "vllm"), VllmEngine)


async def test_slopes_that_vllm_would_ignore_are_for_torch_alone(folder):
    change_config(folder, alibi_slopes=[0.5, 0.25, 0.125, 0.1, 0.05, 0.01])
    await load(folder, "torch")
    with pytest.raises(ConfigError, match=r"config\.json: alibi_slopes is set.*engine torch"):
        await load(folder, "vllm")


def test_vllm_takes_what_config_json_leaves_out_from_the_class_as_torch_does(folder):
    change_config(folder, max_seq_len=None, vocab_size=None)
    config = Step1Config.load(folder)
    engine = VllmEngine(folder)
    assert engine.max_model_len == config.max_seq_len == 4096
    (folder / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"config\.json is not a JSON object"):
        VllmEngine(folder)
