"""Prepared voices in a folder that every replica shares and a restart keeps.

One voice is two files: ``<name>.json`` tells everything but the arrays and names its
``<name>.<sha256>.<unique>.safetensors``, which is checked against that hash when read. The JSON
file is the commit point: it appears in one step after the arrays are safely on disk, so a reader
sees a whole voice or none (a new one on a share without hard links: for an instant a damaged one),
and of two writers of one name exactly one wins. Nothing is cached here.

Blocking; callers on an event loop use a worker thread.
"""

import errno
import hashlib
import json
import os
import re
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from parley_core.errors import AlreadyExists, DataLoss, NotFound
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from parley_tts.voices.voice import Voice, VoiceInfo, VoiceOrigin

_FORMAT = 1
# A file name holds 255 bytes, and the names made of it add a hash and a suffix.
_MAX_NAME_BYTES = 192
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class StoredVoice:
    """What the JSON file of a voice tells.

    Attributes:
        info: the voice.
        source: digest of what it was made from; "" if nobody asks.
        arrays: name of the safetensors file.
        arrays_sha256: hash of its content.
    """

    info: VoiceInfo
    source: str
    arrays: str
    arrays_sha256: str


class VoiceStore:
    """Voices in one folder, made if missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """Names of all voices, sorted."""
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def describe(self, name: str) -> StoredVoice:
        """Reads what is told of a voice, without its arrays.

        Raises:
            NotFound: there is no such voice.
            DataLoss: its file cannot be understood.
        """
        # A name becomes a file name, and may come from a caller.
        if {"/", "\0"} & set(name) or name.startswith(".") or len(name.encode()) > _MAX_NAME_BYTES:
            raise voice_not_found(name)
        try:
            document = json.loads(self._json_path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise voice_not_found(name) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise _corrupt(name, str(error)) from None
        return _from_document(name, document)

    def load(self, name: str) -> Voice:
        """Reads a whole voice.

        Raises:
            NotFound: there is no such voice (any more).
            DataLoss: a file is damaged.
        """
        stored = self.describe(name)
        while True:
            try:
                content = (self._folder / stored.arrays).read_bytes()
                break
            except FileNotFoundError:
                # Another replica may have replaced the voice since it was described.
                newer = self.describe(name)
                if newer.arrays == stored.arrays:
                    raise _corrupt(name, f"{stored.arrays} is missing") from None
                stored = newer
        if hashlib.sha256(content).hexdigest() != stored.arrays_sha256:
            raise _corrupt(name, f"{stored.arrays} does not match its hash")
        try:
            arrays = load_safetensors(content)
            return Voice(
                info=stored.info,
                prompt_tokens=tuple(arrays["prompt_tokens"].tolist()),
                prompt_mel=arrays["prompt_mel"],
                embedding=arrays["embedding"],
            )
        except (SafetensorError, KeyError) as error:
            raise _corrupt(name, str(error)) from None

    def create(self, voice: Voice, *, source: str = "") -> None:
        """Adds a voice.

        Raises:
            AlreadyExists: the name is taken.
        """
        self._write(voice, source, overwrite=False)

    def put(self, voice: Voice, *, source: str = "") -> None:
        """Adds a voice or replaces the one of its name."""
        self._write(voice, source, overwrite=True)

    def delete(self, name: str) -> None:
        """Takes a voice away, for every replica at once; a damaged one too.

        Raises:
            NotFound: there is no such voice.
        """
        files = self._array_files(name)
        try:
            self._json_path(name).unlink()
        except FileNotFoundError:
            raise voice_not_found(name) from None
        for file in files:
            file.unlink(missing_ok=True)

    def _json_path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _write(self, voice: Voice, source: str, *, overwrite: bool) -> None:
        name = voice.info.name
        content = save_safetensors(
            {
                "prompt_tokens": np.asarray(voice.prompt_tokens, dtype=np.int32),
                "prompt_mel": np.ascontiguousarray(voice.prompt_mel, dtype=np.float32),
                "embedding": np.ascontiguousarray(voice.embedding, dtype=np.float32),
            }
        )
        digest = hashlib.sha256(content).hexdigest()
        unique = uuid.uuid4().hex[:8]
        arrays = self._folder / f"{name}.{digest[:16]}.{unique}.safetensors"
        stored = StoredVoice(voice.info, source, arrays.name, digest)
        staged = self._folder / f".{name}.{unique}.tmp"
        replaced = self._replaced_files(name) if overwrite else []
        try:
            _write_durably(arrays, content)
            _write_durably(staged, json.dumps(_to_document(stored), ensure_ascii=False).encode())
            if overwrite:
                staged.replace(self._json_path(name))
            else:
                _publish(staged, self._json_path(name))
        except BaseException as error:
            arrays.unlink(missing_ok=True)
            if isinstance(error, FileExistsError):
                raise voice_exists(name) from None
            raise
        finally:
            staged.unlink(missing_ok=True)
        for file in replaced:
            file.unlink(missing_ok=True)

    def _replaced_files(self, name: str) -> list[Path]:
        try:
            return self._array_files(name)
        except NotFound:
            return []

    def _array_files(self, name: str) -> list[Path]:
        """What a voice's arrays lie in; of one that cannot be read, every file of its name."""
        try:
            return [self._folder / self.describe(name).arrays]
        except DataLoss:
            own = re.compile(rf"{re.escape(name)}\.[0-9a-f]{{16}}\.[0-9a-f]{{8}}\.safetensors")
            return [path for path in self._folder.iterdir() if own.fullmatch(path.name)]


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _publish(staged: Path, path: Path) -> None:
    """Gives a file its name; FileExistsError when somebody has it."""
    try:
        os.link(staged, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # SMB shares and some FUSE mounts. The name is taken first, by an empty file.
        path.open("xb").close()
        staged.replace(path)


def _to_document(stored: StoredVoice) -> dict[str, Any]:
    info = asdict(stored.info) | {"create_time": stored.info.create_time.isoformat()}
    document = asdict(stored) | {"info": info}
    return {"format": _FORMAT, **document}


def _from_document(name: str, document: Any) -> StoredVoice:
    try:
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']} is not known")
        fields = dict(document["info"])
        fields["origin"] = VoiceOrigin(fields["origin"])
        fields["language_codes"] = tuple(fields["language_codes"])
        fields["create_time"] = datetime.fromisoformat(fields["create_time"])
        return StoredVoice(
            VoiceInfo(**fields), document["source"], document["arrays"], document["arrays_sha256"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt(name, str(error)) from None


def voice_exists(name: str) -> AlreadyExists:
    """The error for a name that is taken."""
    return AlreadyExists(
        f"a voice named {name!r} exists", reason="VOICE_EXISTS", resource=f"voices/{name}"
    )


def voice_not_found(name: str) -> NotFound:
    """The error for a name that nobody has."""
    return NotFound(
        f"there is no voice named {name!r}", reason="VOICE_NOT_FOUND", resource=f"voices/{name}"
    )


def _corrupt(name: str, detail: str) -> DataLoss:
    return DataLoss(f"the stored voice {name!r} is damaged: {detail}", reason="VOICE_CORRUPT")
