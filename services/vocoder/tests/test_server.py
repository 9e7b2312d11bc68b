from pathlib import Path

import pytest
import torch
from parley_core.settings import SettingsError, build_settings
from parley_vocoder.checkpoint import CheckpointError
from parley_vocoder.contract import FlowModel
from parley_vocoder.server import load_decoders, serve
from parley_vocoder.settings import VocoderSettings
from parley_vocoder.windows import WindowSettings

pytestmark = pytest.mark.unit


def settings(weights: Path, *overrides: str) -> VocoderSettings:
    return build_settings(VocoderSettings, overrides=[f"weights={weights}", *overrides])


def test_defaults_are_those_of_the_engine(weights: Path) -> None:
    assert settings(weights).torch_engine().windows == WindowSettings()


def test_settings_reach_the_engine(weights: Path) -> None:
    given = settings(
        weights, "streaming.ramp=[1, 2]", "batch.max_frames=9000", "flow_dtype=bfloat16"
    )
    assert given.torch_engine().windows.ramp == (1, 2)
    assert given.torch_engine().max_frames == 9000
    assert given.dtype() == torch.bfloat16


@pytest.mark.parametrize(
    "wrong", ["streaming.hop=3", "batchsize=1", "flow_models=[opera]", "streaming.ramp=[2, 0]"]
)
def test_an_unknown_key_or_value_refuses_to_start(weights: Path, wrong: str) -> None:
    with pytest.raises(SettingsError):
        settings(weights, wrong)


def test_loads_the_folders_it_is_told_to(weights: Path) -> None:
    assert set(load_decoders(settings(weights))) == set(FlowModel)
    assert set(load_decoders(settings(weights, "flow_models=[music]"))) == {FlowModel.MUSIC}


@pytest.mark.parametrize("engine", ["simulator", "triton"])
async def test_a_folder_without_its_configuration_refuses_to_start(
    tmp_path: Path, engine: str
) -> None:
    with pytest.raises(SettingsError, match=r"weights: .*cosyvoice\.yaml: No such file"):
        await serve(settings(tmp_path, f"engine={engine}"))


def test_weights_that_are_not_there_say_so(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"CosyVoice-300M-25Hz/cosyvoice\.yaml: No such file"):
        load_decoders(settings(tmp_path))
    folder = tmp_path / FlowModel.COMMON.value
    folder.mkdir()
    source = weights / FlowModel.COMMON.value / "cosyvoice.yaml"
    (folder / "cosyvoice.yaml").write_text(source.read_text())
    with pytest.raises(CheckpointError, match=r"flow\.pt: no such file"):
        load_decoders(settings(tmp_path))
