"""The weights folder: seeding small stubs, and telling what a folder holds.

Contract: `seed` writes random weights of every model in the published on-disk layout, with a
    manifest ``parley.json``
at the root that says so; the folder appears whole or not at all. Whoever reads weights can tell
stubs from real ones by the manifest's ``kind``. The models' own packages know their files; this
module only calls them.
"""

import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parley_client.local.errors import LocalError
from parley_client.local.services import (
    CHAT_FOLDER,
    COSYVOICE_FOLDER,
    TOKENIZER_FOLDER,
    TTS_FOLDER,
)
from parley_client.local.state import resolved, write_json

MANIFEST = "parley.json"
DEFAULT_SEED = 20250217
SEEDED = "seeded"
"""Kind of random weights, and what asks for them instead of a folder."""
UNLABELLED = "unlabelled"
"""Kind of weights without a manifest."""
POCKET = Path(__file__).resolve().parent.joinpath(*[".."] * 5, "weights", "pocket").resolve()
"""The pocket weights of the checkout that this package is installed from."""

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SeededModel:
    """One model that can be seeded.

    Attributes:
        title: for people.
        module: module with the writer.
        writer: function that writes the files, called with the folders and ``seed=``.
        folders: folders below the root that it writes into.
    """

    title: str
    module: str
    writer: str
    folders: tuple[str, ...]


MODELS = (
    SeededModel("tokenizer", "parley_tokenizer.seeded", "write_seeded", (TOKENIZER_FOLDER,)),
    SeededModel("chat model", "step1.seeded", "write_seeded_chat", (CHAT_FOLDER,)),
    SeededModel("speech model", "step1.seeded", "write_seeded_tts", (TTS_FOLDER,)),
    SeededModel("vocoder", "parley_vocoder.seeded", "write_seeded", (TTS_FOLDER,)),
    SeededModel(
        "voices",
        "parley_tts.seeded",
        "write_seeded",
        (TTS_FOLDER, f"{TTS_FOLDER}/{COSYVOICE_FOLDER}"),
    ),
)


@dataclass(frozen=True)
class Weights:
    """What a weights folder holds.

    Attributes:
        folder: the root.
        kind: ``seeded`` (random numbers), or what another manifest says; ``unlabelled`` without
            one.
        seed: seed of seeded weights; None otherwise.
        files: sha256 by path below the root, as the manifest tells.
    """

    folder: Path
    kind: str
    seed: int | None
    files: dict[str, str]

    @property
    def stub(self) -> bool:
        """The weights are random numbers."""
        return self.kind == SEEDED


def seed(folder: Path, number: int, report: Report = lambda title, done, total: None) -> Weights:
    """Writes seeded weights of all models; does nothing when they are there already.

    Args:
        folder: root to make.
        number: the seed.
        report: called with what is being written, how many models are done and how many there are.

    Raises:
        LocalError: WEIGHTS_FOLDER_TAKEN, PACKAGE_MISSING, WEIGHTS_UNWRITABLE.
    """
    folder = resolved(folder)
    if folder.exists() and any(folder.iterdir()):
        present = describe(folder)
        if present.kind == SEEDED and present.seed == number:
            return present
        raise LocalError(
            f"{folder} holds other weights ({present.kind}, seed {present.seed}); "
            "take another folder or remove it",
            reason="WEIGHTS_FOLDER_TAKEN",
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    # Small tensors: on a busy machine several threads wait for each other for minutes.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        partial.mkdir(parents=True)
        for done, model in enumerate(MODELS):
            report(model.title, done, len(MODELS))
            targets = [partial / name for name in model.folders]
            for target in targets:
                target.mkdir(exist_ok=True)
            _writer(model)(*targets, seed=number)
        files = _digests(partial)
        write_json(partial / MANIFEST, {"kind": SEEDED, "seed": number, "sha256": files})
        for path in partial.rglob("*"):
            # Services in containers read them as another user.
            path.chmod(0o755 if path.is_dir() else 0o644)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise LocalError(
            f"cannot write weights to {folder}: {error.strerror or error}",
            reason="WEIGHTS_UNWRITABLE",
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    report("done", len(MODELS), len(MODELS))
    return Weights(folder, SEEDED, number, files)


def describe(folder: Path) -> Weights:
    """Tells what a folder holds, by its manifest.

    Raises:
        LocalError: WEIGHTS_MISSING when there is no folder, MANIFEST_BROKEN.
    """
    if not folder.is_dir():
        raise LocalError(
            f"no weights at {folder}; make small ones with `parley weights seed {folder}`",
            reason="WEIGHTS_MISSING",
        )
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return Weights(
            folder, str(manifest["kind"]), manifest.get("seed"), dict(manifest.get("sha256", {}))
        )
    except FileNotFoundError:
        return Weights(folder, UNLABELLED, None, {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise LocalError(
            f"{path} cannot be understood; make the weights again", reason="MANIFEST_BROKEN"
        ) from None


def check(folder: Path) -> Weights:
    """Checks that a folder has the layout that the services read.

    Raises:
        LocalError: WEIGHTS_MISSING, naming the first folder that is not there; MANIFEST_BROKEN.
    """
    for name in (TOKENIZER_FOLDER, TTS_FOLDER, CHAT_FOLDER):
        if not (folder / name).is_dir():
            raise LocalError(
                f"{folder} lacks {name}/; a weights folder holds {TOKENIZER_FOLDER}, "
                f"{TTS_FOLDER} and {CHAT_FOLDER}",
                reason="WEIGHTS_MISSING",
            )
    return describe(folder)


def pocket() -> Path | None:
    """Folder of the pocket weights of this checkout; None without one.

    While they lack their manifest, which is made last, they are not complete.
    """
    return POCKET if (POCKET / MANIFEST).is_file() else None


def label(folder: Path, kind: str) -> Weights:
    """Writes the manifest of weights that are complete, over all of their files but notes (.md).

    Args:
        folder: root.
        kind: what they are, in a word.

    Raises:
        LocalError: WEIGHTS_MISSING, WEIGHTS_UNWRITABLE.
    """
    check(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    files = {name: each for name, each in _digests(folder).items() if not name.endswith(".md")}
    try:
        write_json(folder / MANIFEST, {"kind": kind, "sha256": files})
        (folder / MANIFEST).chmod(0o644)
    except OSError as error:
        raise LocalError(
            f"cannot write {folder / MANIFEST}: {error.strerror or error}",
            reason="WEIGHTS_UNWRITABLE",
        ) from None
    return Weights(folder, kind, None, files)


def verify(weights: Weights) -> list[str]:
    """Paths below the root that are missing or differ from the manifest."""
    return [
        name
        for name, digest in weights.files.items()
        if not (weights.folder / name).is_file() or _sha256(weights.folder / name) != digest
    ]


def _writer(model: SeededModel) -> Callable[..., Any]:
    try:
        writer = getattr(importlib.import_module(model.module), model.writer)
    except ImportError as error:
        raise LocalError(
            f"seeding the {model.title} needs {error.name or model.module}, "
            "which is not installed; run `make setup` in the repository",
            reason="PACKAGE_MISSING",
        ) from None
    return writer  # type: ignore[no-any-return]


def files_below(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Files below a folder, also behind links to folders; what cannot be read is passed over.

    Args:
        folder: where to look.
        above: real paths of the folders that it was come through: links may lead in a circle.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    for path in inside:
        if path.is_dir():
            yield from files_below(path, above | {real})
        elif path.is_file():
            yield path


def _digests(root: Path) -> dict[str, str]:
    # Two decoders may be one folder and a link to it: each is asked for by its own name.
    return {str(path.relative_to(root)): _sha256(path) for path in sorted(files_below(root))}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
