"""Text to Step-1 ids and back, over the checkpoint's SentencePiece `tokenizer.model`.

Encoding follows the checkpoint's fast Llama tokenizer (spec 2.5, 1.7): only text at the very start
of an encoded string gets the dummy-prefix piece, text behind an added token gets none, a string
that starts with a newline or a space gets none either.

Two kinds of text, two methods. `encode_template` is for strings of our own and recognises `<s>`,
`<|EOT|>`, `<audio_N>` and the like. `encode_text` is for what people wrote: whatever it spells, it
never yields an added token, so nobody can close a turn or forge speech by typing.
"""

import re
from pathlib import Path

import sentencepiece

from step1.config import AUDIO_CODES
from step1.logits import IdRanges

TOKENIZER_FILE = "tokenizer.model"

# Protobuf merges a repeated sub-message field by field, so these bytes behind a ModelProto set
# normalizer_spec { add_dummy_prefix: false, remove_extra_whitespaces: false }: the prefix is ours
# to place, and the fast class never touches inner spaces.
_PLAIN_NORMALIZER = b"\x1a\x04\x18\x00\x20\x00"
_AUDIO = re.compile(r"<audio_(\d+)>")


class TokenizerError(ValueError):
    """`tokenizer.model` is missing, unreadable or lacks a marker. The message is one line."""


class TextTokenizer:
    """The text part of the vocabulary, and the audio ids' names.

    Attributes:
        bos_id: `<s>`.
        eot_id: `<|EOT|>`, ends a turn.
        bot_id: `<|BOT|>`, begins a turn.
        audio_offset: Vocabulary id of `<audio_0>`.
    """

    def __init__(self, model: bytes, *, audio_offset: int = 65536) -> None:
        """Build from the bytes of `tokenizer.model`.

        Raises:
            TokenizerError: Not a SentencePiece model, or a marker is missing.
        """
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(model + _PLAIN_NORMALIZER)
        except (RuntimeError, ValueError) as error:
            raise TokenizerError(f"not a SentencePiece model ({error})") from None
        self.audio_offset = audio_offset
        size = min(self._pieces.get_piece_size(), audio_offset)
        names = [self._pieces.id_to_piece(index) for index in range(size)]
        self._added: dict[str, int] = {
            name: index
            for index, name in enumerate(names)
            if self._pieces.is_control(index)
            or self._pieces.is_unknown(index)
            or (name.startswith("<|") and name.endswith("|>"))
        }
        for marker in ("<s>", "<|EOT|>", "<|BOT|>"):
            if marker not in self._added:
                raise TokenizerError(f"the tokenizer has no {marker}")
        self.bos_id = self._added["<s>"]
        self.eot_id = self._added["<|EOT|>"]
        self.bot_id = self._added["<|BOT|>"]
        self._specials = frozenset(self._added.values())
        self._text_bytes: list[bytes] = [
            b"" if index in self._specials else self._bytes_of(index, name)
            for index, name in enumerate(names)
        ]
        literals = sorted(self._added, key=len, reverse=True)
        self._added_pattern = re.compile(
            "(" + "|".join([re.escape(name) for name in literals] + [r"<audio_\d+>"]) + ")"
        )

    @classmethod
    def load(cls, folder: Path | str, *, audio_offset: int = 65536) -> "TextTokenizer":
        """Read `tokenizer.model` in a checkpoint folder.

        Raises:
            TokenizerError: Missing or not usable.
        """
        path = Path(folder) / TOKENIZER_FILE
        try:
            model = path.read_bytes()
        except OSError as error:
            raise TokenizerError(f"{path} cannot be read: {error.strerror}") from None
        try:
            return cls(model, audio_offset=audio_offset)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    @property
    def size(self) -> int:
        """Pieces of the text part, added tokens included."""
        return len(self._text_bytes)

    def encode_text(self, text: str, *, at_start: bool = False) -> list[int]:
        """Encode what a person wrote. Never yields an added token.

        Args:
            text: Any text.
            at_start: Whether the text begins the encoded string; then it gets the dummy prefix.
        """
        ids: list[int] = []
        begin = 0
        # Cut inside each marker, so that no segment spells one.
        for match in self._added_pattern.finditer(text):
            ids += self._encode_segment(text[begin : match.start() + 1], at_start and begin == 0)
            begin = match.start() + 1
        return ids + self._encode_segment(text[begin:], at_start and begin == 0)

    def encode_template(self, text: str, *, at_start: bool = True) -> list[int]:
        """Encode a string of our own, added tokens recognised. No BOS is put in front.

        Raises:
            ValueError: `<audio_N>` with N outside 0..5119.
        """
        ids: list[int] = []
        for index, part in enumerate(self._added_pattern.split(text)):
            if index % 2:
                ids.append(self._id_of_added(part))
            elif part:
                ids += self._encode_segment(part, at_start and not ids)
        return ids

    def encode(self, text: str) -> list[int]:
        """What the reference's `tokenizer.encode` gives: BOS, then `encode_template`."""
        return [self.bos_id, *self.encode_template(text)]

    def audio_id(self, code: int) -> int:
        """Vocabulary id of a dual-code id.

        Raises:
            ValueError: `code` is outside 0..5119.
        """
        if not 0 <= code < AUDIO_CODES:
            raise ValueError(f"audio token {code} is outside 0..{AUDIO_CODES - 1}")
        return self.audio_offset + code

    def decode(self, ids: list[int] | tuple[int, ...], *, skip_special: bool = True) -> str:
        """Text of ids. Invalid UTF-8 becomes U+FFFD.

        Args:
            ids: Vocabulary ids.
            skip_special: Leave out added and audio tokens; otherwise they appear by name.
        """
        data = b"".join(
            self.token_bytes(token) if skip_special else self._token_bytes_or_name(token)
            for token in ids
        )
        return data.decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes that a token adds to the text, maybe part of a character.

        Added tokens, audio tokens and the padding of the vocabulary add nothing.
        """
        return self._text_bytes[token] if 0 <= token < len(self._text_bytes) else b""

    def text_ranges(self, *also: int) -> IdRanges:
        """Ids that a model answering in text may yield.

        Every piece save added tokens; no audio ids, nothing beyond the tokenizer.

        Args:
            also: Further ids, e.g. the stop id.
        """
        wanted = sorted({*(i for i in range(self.size) if i not in self._specials), *also})
        ranges: list[tuple[int, int]] = []
        for token in wanted:
            if ranges and ranges[-1][1] == token:
                ranges[-1] = (ranges[-1][0], token + 1)
            else:
                ranges.append((token, token + 1))
        return tuple(ranges)

    def _encode_segment(self, text: str, at_start: bool) -> list[int]:
        if at_start and text and text[0] not in " \n":
            text = " " + text
        return list(self._pieces.encode(text))

    def _id_of_added(self, name: str) -> int:
        match = _AUDIO.fullmatch(name)
        return self.audio_id(int(match[1])) if match else self._added[name]

    def _bytes_of(self, index: int, name: str) -> bytes:
        if self._pieces.is_byte(index):
            return bytes([int(name[3:5], 16)])
        return name.replace("▁", " ").encode("utf-8")

    def _token_bytes_or_name(self, token: int) -> bytes:
        if self.audio_offset <= token < self.audio_offset + AUDIO_CODES:
            return f"<audio_{token - self.audio_offset}>".encode()
        if token in self._specials:
            return self._pieces.id_to_piece(token).encode("utf-8")
        return self.token_bytes(token)
