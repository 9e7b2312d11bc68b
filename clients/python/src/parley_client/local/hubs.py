"""Downloads the published checkpoints from the Hugging Face hub into the layout that services read.

Contract: `pull` leaves a folder whose every large file has the checksum that the hub states; a
download that broke off goes on where it stopped. Thin on purpose: huggingface_hub does the work.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from parley_client.local.errors import LocalError
from parley_client.local.services import CHAT_FOLDER, TOKENIZER_FOLDER, TTS_FOLDER

OWNER = "stepfun-ai"
CHECKPOINTS = {"tokenizer": TOKENIZER_FOLDER, "chat": CHAT_FOLDER, "tts": TTS_FOLDER}

Report = Callable[[str], None]


def pull(root: Path, names: Iterable[str], revision: str | None, report: Report) -> None:
    """Downloads checkpoints into `root` and checks them.

    Args:
        root: root of the weights; made when missing.
        names: of `CHECKPOINTS`.
        revision: branch, tag or commit; None takes the main branch.
        report: called with a line before each step.

    Raises:
        LocalError: HUB_UNREACHABLE, WEIGHTS_CORRUPT, PACKAGE_MISSING.
    """
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ModuleNotFoundError:
        raise LocalError(
            "huggingface_hub is not installed: pip install 'parley[hub]'", reason="PACKAGE_MISSING"
        ) from None
    for name in names:
        repository, folder = f"{OWNER}/{CHECKPOINTS[name]}", root / CHECKPOINTS[name]
        report(f"downloading {repository} to {folder}")
        try:
            info = HfApi().model_info(repository, revision=revision, files_metadata=True)
            snapshot_download(repository, revision=info.sha, local_dir=folder)
        except Exception as error:
            # Its HTTP client has changed twice; whatever it raises, the download can go on later.
            cause = (str(error) or type(error).__name__).splitlines()[0]
            raise LocalError(
                f"cannot download {repository}: {cause}", reason="HUB_UNREACHABLE"
            ) from None
        report(f"checking {folder}")
        stated = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}
        verify(folder, stated)


def verify(folder: Path, stated: dict[str, str]) -> None:
    """Compares files with their sha256.

    Args:
        folder: where they lie.
        stated: sha256 in hexadecimal by path below the folder.

    Raises:
        LocalError: WEIGHTS_CORRUPT, naming the first file that is missing or differs.
    """
    for name, digest in sorted(stated.items()):
        path = folder / name
        if not path.is_file():
            raise LocalError(f"{path} is missing", reason="WEIGHTS_CORRUPT")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise LocalError(
                    f"{path} does not have the checksum that the hub states; remove it and pull "
                    "again",
                    reason="WEIGHTS_CORRUPT",
                )
