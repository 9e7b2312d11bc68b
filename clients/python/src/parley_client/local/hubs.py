"""Published checkpoints from the Hugging Face hub, in the layout that services read.

Contract: every large file is compared with the checksum that the hub states for it; a download that
broke off goes on where it stopped; other models can be added to a folder later. Thin on purpose:
huggingface_hub does the work, and HF_ENDPOINT and HF_TOKEN are its own. Not for when a folder is
whole (`filling`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parley_client.local.errors import LocalError
from parley_client.local.filling import Manifest, Report, sha256
from parley_client.local.services import CHAT_FOLDER, TOKENIZER_FOLDER, TTS_FOLDER

OWNER = "stepfun-ai"
CHECKPOINTS = {"tokenizer": TOKENIZER_FOLDER, "chat": CHAT_FOLDER, "tts": TTS_FOLDER}
DEFAULT_REVISION = "main"


@dataclass(frozen=True)
class Hub:
    """Repositories of the hub.

    Attributes:
        repositories: by folder below the root: name of the repository, and branch, tag or commit.
    """

    repositories: Mapping[str, tuple[str, str]]

    def manifest(self, present: Manifest | None) -> Manifest:
        """What is there and these repositories; the sums of new ones are missing.

        Raises:
            LocalError: WEIGHTS_FOLDER_TAKEN when a folder holds another repository or revision.
        """
        found = dict(present["repositories"]) if present and "repositories" in present else {}
        if present and not found:
            raise LocalError(
                f"the folder holds other weights ({present.get('kind')}); take another one",
                reason="WEIGHTS_FOLDER_TAKEN",
            )
        for folder, (repository, revision) in self.repositories.items():
            wanted = {"repository": repository, "revision": revision}
            if found.setdefault(folder, wanted) != wanted:
                raise LocalError(
                    f"{folder} holds {found[folder]['repository']} at {found[folder]['revision']}, "
                    f"not {repository} at {revision}; take another folder",
                    reason="WEIGHTS_FOLDER_TAKEN",
                )
        sums = dict(present["sha256"]) if present else {}
        return {"kind": "published", "repositories": found, "sha256": sums}

    def fetch(self, root: Path, manifest: Manifest, report: Report) -> None:
        """Downloads the repositories that have no sums yet, or of which a file is missing.

        Raises:
            LocalError: HUB_UNREACHABLE, WEIGHTS_CORRUPT, PACKAGE_MISSING; WEIGHTS_FOLDER_TAKEN when
                a file is missing that the revision does not hold any more as it was.
        """
        for folder, (repository, revision) in self.repositories.items():
            known = {
                name: digest
                for name, digest in manifest["sha256"].items()
                if name.startswith(f"{folder}/")
            }
            if not known or not all((root / name).is_file() for name in known):
                manifest["sha256"] |= _download(root, folder, repository, revision, known, report)


def _download(
    root: Path,
    folder: str,
    repository: str,
    revision: str,
    known: Mapping[str, str],
    report: Report,
) -> dict[str, str]:
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ModuleNotFoundError:
        raise LocalError(
            "huggingface_hub is not installed: pip install 'parley[hub]'", reason="PACKAGE_MISSING"
        ) from None
    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    except Exception as error:
        raise _unreachable(repository, error) from None
    stated = {
        f"{folder}/{file.rfilename}": file.lfs.sha256 if file.lfs else None
        for file in info.siblings or ()
    }
    for name, digest in known.items():
        if name not in stated or stated[name] not in (None, digest):
            raise LocalError(
                f"{name} is another one at {revision} of {repository} by now; pin the revision "
                "that was downloaded, or take another folder",
                reason="WEIGHTS_FOLDER_TAKEN",
            )
    try:
        report(f"downloading {repository} at {info.sha} to {root / folder}")
        snapshot_download(repository, revision=info.sha, local_dir=root / folder)
    except Exception as error:
        raise _unreachable(repository, error) from None
    report(f"checking {root / folder}")
    sums = {}
    for name, expected in stated.items():
        path = root / name
        sums[name] = digest = sha256(path)
        # Git's own small files carry no sha256 there; the large ones, the weights, do.
        if (known.get(name) or expected or digest) != digest:
            path.unlink()
            raise LocalError(
                f"{path} arrived damaged and was removed; run this again", reason="WEIGHTS_CORRUPT"
            )
    return sums


def _unreachable(repository: str, error: Exception) -> LocalError:
    # Its HTTP client has changed twice; whatever it raises, the download can go on later.
    cause = (str(error) or type(error).__name__).splitlines()[0]
    return LocalError(f"cannot download {repository}: {cause}", reason="HUB_UNREACHABLE")
