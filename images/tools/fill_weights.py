"""Fills the weights root of a cluster once, and verifies what is there.

    fill_weights.py copy FROM ROOT              copies a weights folder, e.g. out of this image
    fill_weights.py hub ROOT REPOSITORIES       downloads; REPOSITORIES is JSON: folder to
                                                {repository, revision}; HF_ENDPOINT, HF_TOKEN apply

Contract: ``parley.json`` (sha256 by path) is written last, so its presence says that the root is
whole; a root that has one is verified and left alone; a file whose sum differs ends the program
with status 1 and its name. A download that was cut off goes on where it stopped. Not for making
weights: `parley weights seed` does that.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "parley.json"


class FillError(Exception):
    """The weights cannot be had, or are not what they should be."""


def main(argv: list[str] | None = None) -> int:
    """Runs one of the two commands."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        match arguments:
            case ["copy", source, root]:
                copy(Path(source), Path(root))
            case ["hub", root, repositories]:
                hub(Path(root), json.loads(repositories))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except (FillError, OSError) as error:
        print(f"weights: {error}", file=sys.stderr)
        return 1
    return 0


def copy(source: Path, root: Path) -> None:
    """Copies a weights folder with a manifest.

    Raises:
        FillError: the source has no manifest, the root holds other weights, or a sum differs.
    """
    wanted = _manifest(source)
    if wanted is None:
        raise FillError(f"{source} has no {MANIFEST}")
    present = _manifest(root)
    if present is None:
        for name in wanted["sha256"]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, root / name)
        _finish(root, wanted)
    elif present != wanted:
        raise FillError(
            f"{root} holds other weights; use another weights.folder or empty the claim"
        )
    else:
        _verify(root, wanted["sha256"])


def hub(root: Path, repositories: Mapping[str, Mapping[str, str]]) -> None:
    """Downloads every repository into its folder below the root.

    Raises:
        FillError: a sum differs from the hub's, or the root holds other revisions.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    wanted = {name: dict(each) for name, each in repositories.items()}
    present = _manifest(root)
    if present is not None:
        if present.get("repositories") != wanted:
            raise FillError(
                f"{root} holds {present.get('repositories')}; use another weights.folder for others"
            )
        _verify(root, present["sha256"])
        return
    sums: dict[str, str] = {}
    for folder, each in wanted.items():
        repository, revision = each["repository"], each["revision"]
        try:
            info = HfApi().model_info(repository, revision=revision, files_metadata=True)
            print(f"weights: {repository} at {info.sha}", flush=True)
            snapshot_download(repository, revision=info.sha, local_dir=root / folder)
        except HfHubHTTPError as error:
            raise FillError(f"{repository} at {revision}: {error}") from None
        for file in info.siblings or ():
            name = f"{folder}/{file.rfilename}"
            sums[name] = _sha256(root / name)
            # Git's own small files carry no sha256 there; the large ones, the weights, do.
            if file.lfs is not None and file.lfs.sha256 != sums[name]:
                (root / name).unlink()
                raise FillError(f"{name} arrived damaged; run again")
    _finish(root, {"kind": "published", "repositories": wanted, "sha256": sums})


def _finish(root: Path, manifest: Mapping[str, Any]) -> None:
    _verify(root, manifest["sha256"])
    part = root / f".{MANIFEST}.part"
    part.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    part.rename(root / MANIFEST)


def _verify(root: Path, sums: Mapping[str, str]) -> None:
    for name, digest in sums.items():
        if not (root / name).is_file() or _sha256(root / name) != digest:
            raise FillError(f"{root / name} is missing or its sha256 differs")
    print(f"weights: {len(sums)} files verified in {root}", flush=True)


def _manifest(root: Path) -> dict[str, Any] | None:
    try:
        loaded: dict[str, Any] = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return loaded


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
