import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from parley_tokenizer.engine.batch import TokenizerModels
from parley_tokenizer.engine.worker import TokenizerEngine
from parley_tokenizer.seeded import write_seeded

GOLDEN = Path(os.environ.get("PARLEY_GOLDEN", Path(__file__).parents[4] / "shared/golden"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "Step-Audio-Tokenizer"
    write_seeded(path)
    return path


@pytest.fixture(scope="session")
def models(folder: Path) -> TokenizerModels:
    torch.set_num_threads(1)
    return TokenizerModels.load(folder)


@pytest.fixture
async def engine(models: TokenizerModels) -> AsyncIterator[TokenizerEngine]:
    async with TokenizerEngine(lambda: models, slots=8) as engine:
        await engine.warm_up()
        yield engine


@pytest.fixture(scope="session")
def golden() -> Path:
    if not GOLDEN.is_dir():
        pytest.skip(f"{GOLDEN} is not here")
    return GOLDEN
