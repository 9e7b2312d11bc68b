"""Fills a weights folder from somewhere else, once, and verifies what is there.

Contract: the manifest ``parley.json`` (sha256 by path) is written last, so that its presence says
that the folder is whole. A folder that has one is verified and added to, never written over: other
weights are refused by name, a file whose sum differs from what its source states is named, and one
that is missing is brought again. What was cut off goes on where it stopped. Whence files come is a
`Source`'s business (`hubs`, `buckets`, `Folder`); making weights is `weights.seed`'s.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from parley_client.local.errors import LocalError
from parley_client.local.state import write_json
from parley_client.local.weights import MANIFEST

Report = Callable[[str], None]
Manifest = dict[str, Any]


class Source(Protocol):
    """Where weights come from."""

    def manifest(self, present: Manifest | None) -> Manifest:
        """What the folder shall hold, with what it holds already; sums may still be missing.

        Raises:
            LocalError: the source cannot be reached, or has other weights than are present.
        """
        ...

    def fetch(self, root: Path, manifest: Manifest, report: Report) -> None:
        """Brings the files that are missing below `root` and adds their sums to the manifest.

        Sums that the manifest has already stand: what arrives has them, or is refused.

        Raises:
            LocalError: a file cannot be had, or is not what the source states.
        """
        ...


def fill(root: Path, source: Source, report: Report) -> Manifest:
    """Fills a folder; one that is whole already is verified.

    Args:
        root: the weights folder; made when missing.
        source: where its files come from.
        report: called with a line before each step.

    Raises:
        LocalError: WEIGHTS_FOLDER_TAKEN, WEIGHTS_CORRUPT, WEIGHTS_UNWRITABLE, MANIFEST_BROKEN, and
            what the source raises.
    """
    present = read_manifest(root)
    wanted = source.manifest(present)
    try:
        if present != wanted or not all((root / name).is_file() for name in wanted["sha256"]):
            root.mkdir(parents=True, exist_ok=True)
            source.fetch(root, wanted, report)
        report(f"verifying {len(wanted['sha256'])} files in {root}")
        verify(root, wanted["sha256"])
        if present != wanted:
            write_json(root / MANIFEST, wanted)
            # Services in containers read it as another user.
            (root / MANIFEST).chmod(0o644)
    except OSError as error:
        raise LocalError(
            f"cannot write weights to {root}: {error.strerror or error}",
            reason="WEIGHTS_UNWRITABLE",
        ) from None
    return wanted


def read_manifest(root: Path) -> Manifest | None:
    """The manifest of a folder; None without one.

    Raises:
        LocalError: MANIFEST_BROKEN.
    """
    path = root / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    return parse_manifest(text, str(path))


def parse_manifest(text: str, where: str) -> Manifest:
    """A manifest out of its text; its paths stay below the folder.

    Raises:
        LocalError: MANIFEST_BROKEN.
    """
    try:
        loaded = json.loads(text)
        sums = loaded["sha256"]
        inside = all(isinstance(digest, str) and is_below(name) for name, digest in sums.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        inside = False
    if not inside:
        raise LocalError(f"{where} is not a manifest of weights", reason="MANIFEST_BROKEN")
    return loaded  # type: ignore[no-any-return]


def is_below(name: str) -> bool:
    """A path that cannot lead out of the folder it is joined to."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def refuse_others(root: str, present: Manifest | None, wanted: Manifest) -> None:
    """Raises LocalError, WEIGHTS_FOLDER_TAKEN, when `present` is there and is not `wanted`."""
    if present is not None and present != wanted:
        raise LocalError(
            f"{root} holds other weights ({present.get('kind')}); take another folder or empty it",
            reason="WEIGHTS_FOLDER_TAKEN",
        )


def verify(folder: Path, stated: Mapping[str, str]) -> None:
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
        if sha256(path) != digest:
            raise LocalError(
                f"{path} does not have the checksum that its source states; remove it and run "
                "this again",
                reason="WEIGHTS_CORRUPT",
            )


def sha256(path: Path) -> str:
    """In hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Folder:
    """A folder with a manifest, e.g. in an image."""

    path: Path

    def manifest(self, present: Manifest | None) -> Manifest:
        """The folder's own.

        Raises:
            LocalError: WEIGHTS_MISSING when it has none, WEIGHTS_FOLDER_TAKEN.
        """
        wanted = read_manifest(self.path)
        if wanted is None:
            raise LocalError(f"{self.path} has no {MANIFEST}", reason="WEIGHTS_MISSING")
        refuse_others("the target", present, wanted)
        return wanted

    def fetch(self, root: Path, manifest: Manifest, report: Report) -> None:
        """Copies what the manifest lists, save what is there as it lists it."""
        report(f"copying {len(manifest['sha256'])} files from {self.path}")
        for name, digest in manifest["sha256"].items():
            target = root / name
            if target.is_file() and sha256(target) == digest:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.path / name, target)
