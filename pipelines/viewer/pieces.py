"""Token ids decoded to pieces of text, so that each can be shaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BROKEN = "\N{REPLACEMENT CHARACTER}"
LONGEST_CHARACTER = 8
"""Maximum number of tokens of one character; a longer one is shown as broken."""


class PieceTable:
    """The distinct pieces of a page; a token is an index into it."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, piece: str) -> int:
        """Return the index of a piece, adding it if it is new."""
        if piece not in self._places:
            self._places[piece] = len(self.pieces)
            self.pieces.append(piece)
        return self._places[piece]


class TokenReader:
    """Decodes ids with the tokenizer of a checkpoint folder; without one, to their numbers."""

    def __init__(self, folder: Path | None) -> None:
        self._tokenizer = None if folder is None else _load(folder)
        self._alone: dict[int, str] = {}

    def read(self, ids: Sequence[int]) -> list[str]:
        """Return one piece per token; a character of several tokens is at the last one."""
        if self._tokenizer is None:
            return [f"[{number}]" for number in ids]
        pieces: list[str] = []
        waiting: list[int] = []
        for number in ids:
            waiting.append(number)
            text = self._decode(waiting)
            is_partial = text.endswith(BROKEN) and len(waiting) < LONGEST_CHARACTER
            pieces.append("" if is_partial else text)
            if not is_partial:
                waiting = []
        if waiting:
            pieces[-1] = self._decode(waiting)
        return pieces

    def _decode(self, ids: list[int]) -> str:
        assert self._tokenizer is not None
        if len(ids) > 1:
            return self._tokenizer.decode(ids, skip_special_tokens=False)
        if ids[0] not in self._alone:
            self._alone[ids[0]] = self._tokenizer.decode(ids, skip_special_tokens=False)
        return self._alone[ids[0]]


def _load(folder: Path) -> Tokenizer | None:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    return Tokenizer.from_file(str(path))
