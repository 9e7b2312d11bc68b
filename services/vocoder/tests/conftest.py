import sys
from pathlib import Path

import pytest
import torch
from parley_vocoder.contract import FlowModel
from parley_vocoder.decoder import Decoder
from parley_vocoder.seeded import write_seeded

# pytest's importlib mode does not put this folder on the path; `material` is imported from it.
sys.path.insert(0, str(Path(__file__).parent))

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_seeded(folder)
    return folder


@pytest.fixture(scope="session")
def decoder(weights: Path) -> Decoder:
    return Decoder.load(weights / FlowModel.COMMON.value)
